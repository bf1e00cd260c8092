// cli/serve/rotating_file.h: a text file that lines are appended to, over any number of lives of
// its writers, and that never grows without bound: when it is full it becomes PATH.1 (replacing the
// former one) and a new one begins. Thread: one owner.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "common/status.h"

namespace fathom::client {

class RotatingFile {
 public:
  // Opens or makes `path`. FAILED_PRECONDITION with the system's reason. Together with PATH.1 it
  // takes at most 2 * bytes_max, and one line more.
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
  bool torn_ = false;  // The last line was written in part.
  int64_t dropped_lines_ = 0;
};

}  // namespace fathom::client
