#include "common/rotating_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

namespace fathom {

RotatingFile::RotatingFile(std::string path, int64_t bytes_max)
    : path_(std::move(path)), bytes_max_(bytes_max) {}

RotatingFile::~RotatingFile() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::unique_ptr<RotatingFile>> RotatingFile::Open(std::string path,
                                                                 int64_t bytes_max) {
  std::unique_ptr<RotatingFile> file(new RotatingFile(std::move(path), bytes_max));
  FATHOM_RETURN_IF_ERROR(file->Reopen());
  return file;
}

absl::Status RotatingFile::Reopen() {
  if (fd_ >= 0) close(fd_);
  fd_ = open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  struct stat facts {};
  if (fd_ < 0 || fstat(fd_, &facts) != 0) {
    return FailedPrecondition("cannot write {}: {}", path_, std::strerror(errno));
  }
  bytes_ = facts.st_size;
  return absl::OkStatus();
}

bool RotatingFile::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes_ += written;
    torn_ = true;  // True until the newline is written.
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

void RotatingFile::Append(std::string_view line) {
  if (bytes_ > 0 && bytes_ + static_cast<int64_t>(line.size()) >= bytes_max_) {
    // If the old file cannot be renamed, its content is dropped, so that the size limit holds.
    if (std::rename(path_.c_str(), (path_ + ".1").c_str()) != 0 && fd_ >= 0) {
      [[maybe_unused]] const int emptied = ftruncate(fd_, 0);
    }
    // If a new file cannot be opened (no descriptor, a removed folder), lines are dropped; each
    // line tries to open it again.
    if (Reopen().ok()) torn_ = false;
  }
  if (fd_ < 0 && !Reopen().ok()) {
    ++dropped_lines_;
    return;
  }
  std::string text = torn_ ? "\n" : "";
  text.append(line).append("\n");
  if (Write(text)) {
    torn_ = false;
  } else {
    ++dropped_lines_;
  }
}

}  // namespace fathom
