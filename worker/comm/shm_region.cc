#include "worker/comm/shm_region.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
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

// The first page; the system fills a new one with zeros.
struct ShmRegion::Header {
  uint64_t magic;
  uint64_t use;
  int32_t ranks;
  int64_t unit;
  std::atomic<uint32_t> attached;
  std::atomic<uint32_t> aborted;
};

ShmRegion::ShmRegion(std::string name, void* memory, size_t bytes, int lock)
    : name_(std::move(name)),
      lock_(lock),
      header_(static_cast<Header*>(memory)),
      mapped_bytes_(bytes) {
  static_assert(sizeof(Header) <= kPage);
  if (header_->attached.fetch_add(1) + 1 == static_cast<uint32_t>(header_->ranks)) Unlink();
}

ShmRegion::~ShmRegion() {
  Unlink();  // Names are random, so a second Unlink removes nothing of others.
  munmap(header_, mapped_bytes_);
  if (lock_ >= 0) close(lock_);
}

void ShmRegion::Unlink() { shm_unlink(name_.c_str()); }

int64_t ShmRegion::unit() const { return header_->unit; }
std::byte* ShmRegion::data() const { return reinterpret_cast<std::byte*>(header_) + kPage; }
size_t ShmRegion::bytes() const { return mapped_bytes_ - kPage; }
std::atomic<uint32_t>& ShmRegion::aborted() const { return header_->aborted; }

absl::StatusOr<std::unique_ptr<ShmRegion>> ShmRegion::Create(const Shape& shape, int64_t unit,
                                                             size_t bytes) {
  RemoveLeftRegions();
  bytes += kPage;
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
        bytes, shape.ranks, std::strerror(map_error), geteuid());
  }
  auto* header = static_cast<Header*>(memory);
  header->use = shape.use;
  header->ranks = shape.ranks;
  header->unit = unit;
  header->magic = kMagic;
  return std::unique_ptr<ShmRegion>(new ShmRegion(name, memory, bytes, file));
}

absl::StatusOr<std::unique_ptr<ShmRegion>> ShmRegion::Open(const Shape& shape,
                                                           const std::string& name) {
  const int file = shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0);
  // The messages are without the name, so that equal reasons give equal messages.
  if (file < 0) {
    return Invalid(
        "the shared memory of rank 0 cannot be opened: {}; all ranks of a group must see the same "
        "/dev/shm, as the same user",
        std::strerror(errno));
  }
  struct stat info = {};
  const bool stated = fstat(file, &info) == 0 && static_cast<size_t>(info.st_size) >= kPage;
  const auto bytes = static_cast<size_t>(info.st_size);
  void* memory =
      stated ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  close(file);
  if (memory == MAP_FAILED) return Invalid("the shared memory of rank 0 cannot be mapped");
  const auto* header = static_cast<const Header*>(memory);
  if (header->magic != kMagic || header->use != shape.use || header->ranks != shape.ranks) {
    munmap(memory, bytes);
    return Invalid("the shared memory of rank 0 is not that of a group of {} ranks", shape.ranks);
  }
  return std::unique_ptr<ShmRegion>(new ShmRegion(name, memory, bytes, -1));
}

}  // namespace fathom::worker
