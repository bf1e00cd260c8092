#include "common/watched_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace fathom {

std::optional<WatchedFile::Stamp> WatchedFile::Look() const {
  struct stat file = {};
  if (stat(path_.c_str(), &file) != 0) return std::nullopt;
  return Stamp{static_cast<int64_t>(file.st_dev), static_cast<int64_t>(file.st_ino), file.st_size,
               file.st_mtim.tv_sec * int64_t{1'000'000'000} + file.st_mtim.tv_nsec};
}

absl::StatusOr<std::string> WatchedFile::Read() {
  seen_ = Look();
  errno = 0;
  std::ifstream file(path_, std::ios::binary);
  if (!seen_ || !file) {
    return NotFound("{} {}: cannot be opened: {}; is the path right, and may this user read it?",
                    flag_, path_, std::strerror(errno == 0 ? ENOENT : errno));
  }
  if (seen_->bytes > bytes_max_) {
    return Invalid("{} {}: {} bytes, of at most {}", flag_, path_, seen_->bytes, bytes_max_);
  }
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool WatchedFile::Changed() const {
  const std::optional<Stamp> now = Look();
  return now && now != seen_;
}

}  // namespace fathom
