// common/watched_file.h: the content of a small file that may be replaced while the process runs: a
// file of keys, a certificate. Thread: the owner's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "common/status.h"

namespace fathom {

class WatchedFile {
 public:
  // `flag` is named in messages, e.g. "--api-keys".
  WatchedFile(std::string flag, std::string path, int64_t bytes_max)
      : flag_(std::move(flag)), path_(std::move(path)), bytes_max_(bytes_max) {}

  const std::string& path() const { return path_; }

  // NOT_FOUND: it cannot be opened; INVALID_ARGUMENT: it is longer than bytes_max.
  absl::StatusOr<std::string> Read();
  // The file is another one than at the last Read, or was written since. A file that was removed is
  // not another one, since an editor may write it anew.
  bool Changed() const;

 private:
  struct Stamp {
    int64_t device = 0, inode = 0, bytes = 0, written_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  std::optional<Stamp> Look() const;  // nullopt: there is none.

  std::string flag_, path_;
  int64_t bytes_max_;
  std::optional<Stamp> seen_;
};

}  // namespace fathom
