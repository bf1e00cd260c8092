// common/rotating_file.h: a bounded text file to which lines are appended, also over several
// lives of its writers. A full file becomes PATH.1 (replacing the old one), and a new file begins.
// Only its owner may read it: the log of a router may have prompts (--log-requests prompts).
// Thread: one owner.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "common/status.h"

namespace fathom {

class RotatingFile {
 public:
  // Opens or creates `path`. FAILED_PRECONDITION with the system's reason. The file and PATH.1
  // together take at most 2 * bytes_max plus one line.
  static absl::StatusOr<std::unique_ptr<RotatingFile>> Open(std::string path, int64_t bytes_max);
  ~RotatingFile();
  RotatingFile(const RotatingFile&) = delete;
  RotatingFile& operator=(const RotatingFile&) = delete;

  // Appends the line and a newline. A line that cannot be written (a full disk) is dropped and
  // counted.
  void Append(std::string_view line);
  int64_t dropped_lines() const { return dropped_lines_; }

 private:
  RotatingFile(std::string path, int64_t bytes_max);
  absl::Status Reopen();
  bool Write(std::string_view bytes);

  const std::string path_;
  const int64_t bytes_max_;
  int fd_ = -1;
  int64_t bytes_ = 0;
  bool torn_ = false;  // The last line was written only in part.
  int64_t dropped_lines_ = 0;
};

}  // namespace fathom
