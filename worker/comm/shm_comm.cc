#include "worker/comm/shm_comm.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/check.h"

namespace fathom::worker {
namespace {

constexpr uint64_t kMagic = 0x46415448'4f4d5348;  // "FATHOMSH".
constexpr size_t kPage = 4096;
constexpr int kTries = 16;  // Tries to make a file that no other process removes as left over.
constexpr char kPrefix[] = "/fathom-";
constexpr size_t kNameChars = sizeof(kPrefix) - 1 + 32;
// A peer that computes the same op arrives within microseconds. If there are fewer cores than
// processes, the peer may need the core of this thread, so most of the wait yields the core. Only
// after about 0.2 ms the thread sleeps, because a wake-up takes longer than a collective.
constexpr int kSpins = 200;
constexpr int kYields = 400;
// The longest delay of an Abort whose wake-up was lost because its process died.
constexpr int64_t kSleepNs = 20'000'000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

uint32_t* WordOf(std::atomic<uint32_t>* atomic) { return reinterpret_cast<uint32_t*>(atomic); }

void FutexWait(std::atomic<uint32_t>* word, uint32_t seen) {
  const timespec timeout{0, kSleepNs};
  syscall(SYS_futex, WordOf(word), FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

void FutexWakeAll(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, WordOf(word), FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

// Whether `published` is `meeting` or later, counting modulo 2^32.
bool Reached(uint32_t published, uint32_t meeting) {
  return static_cast<int32_t>(published - meeting) >= 0;
}

size_t BytesFor(size_t header_bytes, int size, int64_t slot_floats) {
  return header_bytes +
         2 * static_cast<size_t>(size) * static_cast<size_t>(slot_floats) * sizeof(float);
}

std::string RandomName() {
  unsigned char random[16];
  FATHOM_CHECK(getrandom(random, sizeof(random), 0) == sizeof(random));
  std::string name = kPrefix;
  for (const unsigned char byte : random) name += fmt::format("{:02x}", byte);
  return name;
}

// Makes a new empty file with a random name and locks it; returns -1 with errno on failure.
// RemoveLeftRegions of another process may remove the file before it is locked; then the next name
// is tried.
int MakeLockedFile(std::string* name) {
  for (int i = 0; i < kTries; ++i) {
    *name = RandomName();
    const int file = shm_open(name->c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0) return -1;
    struct stat info = {};
    if (flock(file, LOCK_EX | LOCK_NB) == 0 && fstat(file, &info) == 0 && info.st_nlink > 0) {
      return file;
    }
    shm_unlink(name->c_str());
    close(file);
    errno = EBUSY;
  }
  return -1;
}

// Removes the names in /dev/shm that killed processes of this user have left: no process holds a
// lock on them.
void RemoveLeftRegions() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", error)) {
    const std::string name = "/" + entry.path().filename().string();
    if (!name.starts_with(kPrefix) || name.size() != kNameChars) continue;
    const int file = shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0);
    if (file < 0) continue;
    struct stat info = {};
    if (fstat(file, &info) == 0 && info.st_uid == geteuid() &&
        flock(file, LOCK_EX | LOCK_NB) == 0) {
      shm_unlink(name.c_str());
    }
    close(file);
  }
}

}  // namespace

// The begin of the region; the system fills a new one with zeros.
struct ShmComm::Header {
  // Each line is a cache line of its own, so that a waiting rank disturbs only the rank that it
  // waits for.
  struct alignas(64) Line {
    std::atomic<uint32_t> published;  // The last meeting whose part this rank has written.
    std::atomic<uint32_t> sleepers;   // Ranks that may be in FutexWait on `published`.
  };
  uint64_t magic;
  int32_t size;
  int64_t slot_floats;
  std::atomic<uint32_t> attached;
  std::atomic<uint32_t> aborted;
  Line lines[kRanksMax];
};

static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);

ShmComm::ShmComm(std::string name, int rank, Header* header, size_t bytes, int lock)
    : name_(std::move(name)),
      lock_(lock),
      rank_(rank),
      size_(header->size),
      header_(header),
      bytes_(bytes),
      slot_floats_(header->slot_floats),
      slots_(reinterpret_cast<float*>(reinterpret_cast<char*>(header) + bytes -
                                      BytesFor(0, header->size, header->slot_floats))) {
  if (header_->attached.fetch_add(1) + 1 == static_cast<uint32_t>(size_)) Unlink();
}

ShmComm::~ShmComm() {
  Unlink();  // Names are random, so a second Unlink removes nothing of others.
  munmap(header_, bytes_);
  if (lock_ >= 0) close(lock_);
}

void ShmComm::Unlink() { shm_unlink(name_.c_str()); }

absl::StatusOr<std::unique_ptr<ShmComm>> ShmComm::Create(int size, int64_t slot_floats) {
  FATHOM_CHECK(size >= 1 && size <= kRanksMax && slot_floats > 0);
  RemoveLeftRegions();
  const size_t header_bytes = (sizeof(Header) + kPage - 1) / kPage * kPage;
  const size_t bytes = BytesFor(header_bytes, size, slot_floats);
  std::string name;
  const int file = MakeLockedFile(&name);
  // posix_fallocate and not ftruncate: a full /dev/shm is then an error here and not a SIGBUS in a
  // step.
  const int error = file < 0 ? errno : posix_fallocate(file, 0, static_cast<off_t>(bytes));
  void* memory =
      error != 0 ? MAP_FAILED : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int map_error = error != 0 ? error : errno;
  if (memory == MAP_FAILED) {
    if (file >= 0) {
      shm_unlink(name.c_str());
      close(file);
    }
    return Exhausted(
        "{} bytes of shared memory for {} ranks: {}; /dev/shm must be writable for user {} and "
        "have so much room (in a container: --shm-size, or an emptyDir with medium Memory)",
        bytes, size, std::strerror(map_error), geteuid());
  }
  auto* header = static_cast<Header*>(memory);
  header->size = size;
  header->slot_floats = slot_floats;
  header->magic = kMagic;
  return std::unique_ptr<ShmComm>(new ShmComm(name, 0, header, bytes, file));
}

absl::StatusOr<std::unique_ptr<ShmComm>> ShmComm::Open(const std::string& name, int rank,
                                                       int size) {
  FATHOM_CHECK(rank > 0 && rank < size && size <= kRanksMax);
  const int file = shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0);
  // The message is without the name, so that equal reasons give equal messages.
  if (file < 0) {
    return Invalid(
        "the shared memory of rank 0 cannot be opened: {}; all ranks of a group must see the same "
        "/dev/shm, as the same user",
        std::strerror(errno));
  }
  struct stat info = {};
  const bool stated =
      fstat(file, &info) == 0 && static_cast<size_t>(info.st_size) >= sizeof(Header);
  const auto bytes = static_cast<size_t>(info.st_size);
  void* memory =
      stated ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  close(file);
  if (memory == MAP_FAILED) return Invalid("the shared memory of rank 0 cannot be mapped");
  auto* header = static_cast<Header*>(memory);
  if (header->magic != kMagic || header->size != size || header->slot_floats <= 0 ||
      bytes < BytesFor(sizeof(Header), size, header->slot_floats)) {
    munmap(memory, bytes);
    return Invalid("the shared memory of rank 0 is not that of a group of {} ranks", size);
  }
  return std::unique_ptr<ShmComm>(new ShmComm(name, rank, header, bytes, -1));
}

float* ShmComm::Slot(uint32_t meeting, int rank) const {
  return slots_ + ((meeting & 1) * static_cast<size_t>(size_) + static_cast<size_t>(rank)) *
                      static_cast<size_t>(slot_floats_);
}

absl::Status ShmComm::AllReduceSum(std::span<float> values) {
  for (size_t done = 0; done < values.size();) {
    const size_t count = std::min(values.size() - done, static_cast<size_t>(slot_floats_));
    float* const out = values.data() + done;
    const uint32_t meeting = meetings_;
    std::memcpy(Slot(meeting, rank_), out, count * sizeof(float));
    FATHOM_RETURN_IF_ERROR(Meet());
    std::memcpy(out, Slot(meeting, 0), count * sizeof(float));
    for (int peer = 1; peer < size_; ++peer) {
      const float* const part = Slot(meeting, peer);
      for (size_t i = 0; i < count; ++i) out[i] += part[i];
    }
    done += count;
  }
  return absl::OkStatus();
}

absl::Status ShmComm::AllGather(std::span<const float> mine, std::span<float> all) {
  FATHOM_CHECK(all.size() == static_cast<size_t>(size_) * mine.size());
  for (size_t done = 0; done < mine.size();) {
    const size_t count = std::min(mine.size() - done, static_cast<size_t>(slot_floats_));
    const uint32_t meeting = meetings_;
    std::memcpy(Slot(meeting, rank_), mine.data() + done, count * sizeof(float));
    FATHOM_RETURN_IF_ERROR(Meet());
    for (int peer = 0; peer < size_; ++peer) {
      std::memcpy(all.data() + static_cast<size_t>(peer) * mine.size() + done, Slot(meeting, peer),
                  count * sizeof(float));
    }
    done += count;
  }
  return absl::OkStatus();
}

absl::Status ShmComm::Meet() {
  Header::Line& mine = header_->lines[rank_];
  const uint32_t meeting = ++meetings_;
  // Sequentially consistent with WaitFor: either the waiting rank sees this number, or this rank
  // sees the sleeper.
  mine.published.store(meeting);
  if (mine.sleepers.load() != 0) FutexWakeAll(&mine.published);
  for (int peer = 0; peer < size_; ++peer) {
    if (peer != rank_) FATHOM_RETURN_IF_ERROR(WaitFor(peer, meeting));
  }
  if (header_->aborted.load() != 0) return Aborted("the group's epoch ended");
  return absl::OkStatus();
}

absl::Status ShmComm::WaitFor(int peer, uint32_t meeting) {
  Header::Line& line = header_->lines[peer];
  for (int i = 0; i < kSpins + kYields; ++i) {
    if (Reached(line.published.load(std::memory_order_acquire), meeting)) return absl::OkStatus();
    if (i < kSpins) {
      Pause();
    } else if (header_->aborted.load(std::memory_order_relaxed) != 0) {
      break;  // On a busy machine the remaining yields may take a second.
    } else {
      sched_yield();
    }
  }
  absl::Status status;
  line.sleepers.fetch_add(1);
  while (true) {
    const uint32_t published = line.published.load();
    if (Reached(published, meeting)) break;
    if (header_->aborted.load() != 0) {
      status = Aborted("the group's epoch ended while rank {} waited for rank {}", rank_, peer);
      break;
    }
    FutexWait(&line.published, published);
  }
  line.sleepers.fetch_sub(1);
  return status;
}

void ShmComm::Abort() {
  header_->aborted.store(1);
  for (int rank = 0; rank < size_; ++rank) FutexWakeAll(&header_->lines[rank].published);
}

}  // namespace fathom::worker
