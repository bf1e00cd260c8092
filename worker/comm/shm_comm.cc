#include "worker/comm/shm_comm.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "common/check.h"

namespace fathom::worker {
namespace {

constexpr uint64_t kMagic = 0x46415448'4f4d5348;  // "FATHOMSH".
constexpr size_t kPage = 4096;
// A peer that computes the same op arrives within microseconds. With fewer cores than processes it
// may need ours, so most of the wait gives the core away; only a wait of some 0.2 ms sleeps, for a
// wake-up costs more than a collective.
constexpr int kSpins = 200;
constexpr int kYields = 400;
// How late an Abort may be noticed whose wake-up was lost with its process.
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
  std::string name = "/fathom-";
  for (const unsigned char byte : random) name += fmt::format("{:02x}", byte);
  return name;
}

}  // namespace

// At the region's start, zero-filled by the system when new.
struct ShmComm::Header {
  // Own cache lines, so that a rank that waits disturbs nobody but the one it waits for.
  struct alignas(64) Line {
    std::atomic<uint32_t> published;  // The last meeting this rank has written its part of.
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

ShmComm::ShmComm(std::string name, int rank, Header* header, size_t bytes)
    : name_(std::move(name)),
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
  Unlink();  // Harmless when it is done already: names are random.
  munmap(header_, bytes_);
}

void ShmComm::Unlink() { shm_unlink(name_.c_str()); }

absl::StatusOr<std::unique_ptr<ShmComm>> ShmComm::Create(int size, int64_t slot_floats) {
  FATHOM_CHECK(size >= 1 && size <= kRanksMax && slot_floats > 0);
  const std::string name = RandomName();
  const size_t header_bytes = (sizeof(Header) + kPage - 1) / kPage * kPage;
  const size_t bytes = BytesFor(header_bytes, size, slot_floats);
  const int file = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) return Exhausted("shm_open {}: {}", name, std::strerror(errno));
  // posix_fallocate and not ftruncate: a full /dev/shm is an error here and not a SIGBUS in a step.
  const int error = posix_fallocate(file, 0, static_cast<off_t>(bytes));
  void* memory =
      error != 0 ? MAP_FAILED : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int map_error = error != 0 ? error : errno;
  close(file);
  if (memory == MAP_FAILED) {
    shm_unlink(name.c_str());
    return Exhausted("{} bytes of shared memory for {} ranks: {}; give /dev/shm more room", bytes,
                     size, std::strerror(map_error));
  }
  auto* header = static_cast<Header*>(memory);
  header->size = size;
  header->slot_floats = slot_floats;
  header->magic = kMagic;
  return std::unique_ptr<ShmComm>(new ShmComm(name, 0, header, bytes));
}

absl::StatusOr<std::unique_ptr<ShmComm>> ShmComm::Open(const std::string& name, int rank,
                                                       int size) {
  FATHOM_CHECK(rank > 0 && rank < size && size <= kRanksMax);
  const int file = shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0);
  if (file < 0) return Invalid("shared memory {} of rank 0: {}", name, std::strerror(errno));
  struct stat info = {};
  const bool stated =
      fstat(file, &info) == 0 && static_cast<size_t>(info.st_size) >= sizeof(Header);
  const auto bytes = static_cast<size_t>(info.st_size);
  void* memory =
      stated ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  close(file);
  if (memory == MAP_FAILED) return Invalid("shared memory {} of rank 0 cannot be mapped", name);
  auto* header = static_cast<Header*>(memory);
  if (header->magic != kMagic || header->size != size || header->slot_floats <= 0 ||
      bytes < BytesFor(sizeof(Header), size, header->slot_floats)) {
    munmap(memory, bytes);
    return Invalid("shared memory {} is not that of a group of {} ranks", name, size);
  }
  return std::unique_ptr<ShmComm>(new ShmComm(name, rank, header, bytes));
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
  // Sequentially consistent with WaitFor: either it sees this number, or we see its sleeper.
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
      break;  // On a busy machine the rest of the yields may take a second.
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
