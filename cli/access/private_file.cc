#include "cli/access/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace fathom::client {

absl::Status WritePrivateFile(const std::string& path, std::string_view text) {
  const auto failed = [&](const char* what) {
    return Invalid("{}: cannot be {}: {}; give a file in a folder of yours", path, what,
                   std::strerror(errno));
  };
  struct stat old = {};
  const mode_t mode = stat(path.c_str(), &old) == 0 ? old.st_mode & 0777 : 0600;
  const std::string next = fmt::format("{}.{}.new", path, getpid());
  const int file = open(next.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file < 0) return failed("made");
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t wrote = write(file, text.data() + done, text.size() - done);
    if (wrote <= 0) break;
    done += static_cast<size_t>(wrote);
  }
  const bool whole = done == text.size() && fsync(file) == 0;
  close(file);
  if (whole && rename(next.c_str(), path.c_str()) == 0) return absl::OkStatus();
  const absl::Status status = failed("written");
  unlink(next.c_str());
  return status;
}

}  // namespace fathom::client
