#include "cli/serve/run_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "common/output.h"

namespace fathom::client {
namespace {

// A program on fixed ports keeps its folder (and so its term and logs) over restarts. One on any
// free port has no name and gets a new folder.
absl::StatusOr<std::string> DefaultDir(const std::string& name) {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  const std::string place = runtime != nullptr && *runtime != '\0'
                                ? std::string(runtime)
                                : fmt::format("/tmp/fathom-{}", getuid());
  std::error_code error;
  if (std::filesystem::create_directories(place, error)) chmod(place.c_str(), S_IRWXU);
  if (!name.empty()) return fmt::format("{}/{}", place, name);
  std::string pattern = fmt::format("{}/fathom-pid{}-XXXXXX", place, getpid());
  if (mkdtemp(pattern.data()) == nullptr) {
    return FailedPrecondition("cannot make a folder in {}: {}; give another as --run-dir", place,
                              std::strerror(errno));
  }
  return pattern;
}

// Whether a folder with this owner may have our logs. A folder that the user named may also be
// root's and writable for us: a volume of a container is.
bool MayUse(const struct stat& facts, bool named) {
  return facts.st_uid == geteuid() || (named && facts.st_uid == 0);
}

}  // namespace

std::string BinDir() { return std::filesystem::read_symlink("/proc/self/exe").parent_path(); }

absl::StatusOr<std::string> HoldRunDir(const std::string& program, const std::string& wanted,
                                       const std::string& name) {
  std::string run_dir = wanted;
  if (run_dir.empty()) {
    FATHOM_ASSIGN_OR_RETURN(run_dir, DefaultDir(name));
  }
  std::error_code error;
  const bool created = std::filesystem::create_directories(run_dir, error);
  struct stat facts {};
  if (error || stat(run_dir.c_str(), &facts) != 0 || !S_ISDIR(facts.st_mode) ||
      !MayUse(facts, !wanted.empty()) || (created && chmod(run_dir.c_str(), S_IRWXU) != 0)) {
    return FailedPrecondition("{} is not a directory of this user; give another as --run-dir",
                              run_dir);
  }
  const std::string path = run_dir + "/serve.lock";
  // The lock lasts as long as this process, so the descriptor is never closed.
  const int held = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (held < 0) {
    return FailedPrecondition("cannot write {}: {}; give another --run-dir", path,
                              std::strerror(errno));
  }
  char other[32] = {};
  if (flock(held, LOCK_EX | LOCK_NB) != 0) {
    const ssize_t size = read(held, other, sizeof other - 1);
    close(held);
    return Unavailable(
        "{} is the run directory of another {} (process {}), whose logs are there; stop that one, "
        "or give this one a --run-dir of its own",
        run_dir, program, size > 0 ? other : "unknown");
  }
  const std::string pid = std::to_string(getpid());
  if (ftruncate(held, 0) != 0 || pwrite(held, pid.data(), pid.size(), 0) < 0) {
    Diagnose("{}: cannot write {}: {}", program, path, std::strerror(errno));
  }
  return run_dir;
}

}  // namespace fathom::client
