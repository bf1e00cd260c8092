#include "modeling/checkpoint/weight_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "common/status.h"

namespace fathom {
namespace {

constexpr size_t kReadBytesMax = 1 << 30;  // One read of Linux returns less than 2 GiB.

std::string ErrorText(int error) { return std::generic_category().message(error); }

}  // namespace

WeightFile::WeightFile(int descriptor, std::string name, uint64_t bytes)
    : descriptor_(descriptor), name_(std::move(name)), bytes_(bytes) {}

WeightFile::WeightFile(WeightFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      name_(std::move(other.name_)),
      bytes_(other.bytes_) {}

WeightFile::~WeightFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::StatusOr<WeightFile> WeightFile::Open(const std::filesystem::path& path) {
  // With O_NONBLOCK a pipe instead of a file is refused; without it the open would wait.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return NotFound("{}: cannot be opened ({}); the model folder is incomplete", path.string(),
                    ErrorText(errno));
  }
  WeightFile file(descriptor, path.filename().string(), 0);
  struct stat info = {};
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    return NotFound("{}: is not a file", path.string());
  }
  file.bytes_ = static_cast<uint64_t>(info.st_size);
  return file;
}

absl::Status WeightFile::Read(uint64_t offset, std::byte* target, size_t count) const {
  while (count > 0) {
    const ssize_t got =
        pread(descriptor_, target, std::min(count, kReadBytesMax), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Unread(offset, count, got < 0 ? errno : 0);
    offset += static_cast<uint64_t>(got);
    target += got;
    count -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::Status WeightFile::ReadScattered(uint64_t offset, std::span<const Place> places) const {
  constexpr size_t kPlacesMax = 256;  // Linux allows 1,024 in one call.
  while (!places.empty()) {
    std::array<iovec, kPlacesMax> vectors;
    const size_t wanted = std::min(places.size(), kPlacesMax);
    size_t bytes = 0;
    int count = 0;
    for (; count < static_cast<int>(wanted); ++count) {
      const Place& place = places[static_cast<size_t>(count)];
      if (count > 0 && bytes + place.bytes > kReadBytesMax) break;
      vectors[static_cast<size_t>(count)] = {place.target, place.bytes};
      bytes += place.bytes;
    }
    ssize_t got = -1;
    do {
      got = preadv(descriptor_, vectors.data(), count, static_cast<off_t>(offset));
    } while (got < 0 && errno == EINTR);
    if (got <= 0) return Unread(offset, bytes, got < 0 ? errno : 0);
    offset += static_cast<uint64_t>(got);
    auto left = static_cast<size_t>(got);
    while (!places.empty() && left >= places.front().bytes) {
      left -= places.front().bytes;
      places = places.subspan(1);
    }
    if (left == 0) continue;
    // The read ended inside this place; its rest is read separately.
    const Place& place = places.front();
    FATHOM_RETURN_IF_ERROR(Read(offset, place.target + left, place.bytes - left));
    offset += place.bytes - left;
    places = places.subspan(1);
  }
  return absl::OkStatus();
}

absl::Status WeightFile::Unread(uint64_t offset, size_t count, int error) const {
  return DataLoss("{}: {} bytes at offset {} cannot be read ({}); copy the file again", name_,
                  count, offset, error != 0 ? ErrorText(error) : "the file ends before");
}

absl::StatusOr<std::string> WeightFile::ReadText(uint64_t offset, size_t count) const {
  std::string text(count, '\0');
  FATHOM_RETURN_IF_ERROR(Read(offset, reinterpret_cast<std::byte*>(text.data()), count));
  return text;
}

}  // namespace fathom
