#include "scheduler/term_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "cluster/terms.h"

namespace fathom::scheduler {
namespace {

constexpr std::chrono::seconds kLockWait{5};

absl::StatusOr<TermId> NextTerm(uint64_t stored, TermId reported) {
  if (!IsCredible(reported, TermId{stored})) {
    return OutOfRange(
        "a peer reports term {}, more than {} above the highest one stored, {}; such a jump uses "
        "up the numbers. If the peer is right and the term store was lost, write {} into it",
        reported.value, kTermLeadMax, stored, reported.value);
  }
  const uint64_t highest = std::max(stored, reported.value);
  if (highest >= kTermMax) {
    return OutOfRange(
        "term {} is beyond the highest one, {}; no cluster comes so far, look at the term store",
        highest, kTermMax);
  }
  return TermId{highest + 1};
}

class MemoryTermStore final : public TermStore {
 public:
  absl::StatusOr<TermId> Take(TermId reported) override {
    auto term = NextTerm(stored_, reported);
    if (term.ok()) stored_ = term->value;
    return term;
  }

 private:
  uint64_t stored_ = 0;
};

class FileTermStore final : public TermStore {
 public:
  explicit FileTermStore(std::string path) : path_(std::move(path)) {}

  absl::StatusOr<TermId> Take(TermId reported) override {
    // The lock has its own file: the term's file is replaced, and a lock belongs to the inode.
    const std::string lock_path = path_ + ".lock";
    const int lock = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock < 0) return Error("open", lock_path);
    absl::Cleanup unlock = [lock] { close(lock); };
    FATHOM_RETURN_IF_ERROR(Lock(lock, lock_path));
    FATHOM_ASSIGN_OR_RETURN(const uint64_t stored, Read());
    FATHOM_ASSIGN_OR_RETURN(const TermId term, NextTerm(stored, reported));
    const std::string text = fmt::format("{}\n", term.value);
    absl::Status written = Replace(text);
    // A scheduler that died must be able to restart on a full disk.
    if (absl::IsResourceExhausted(written) && Overwrite(text).ok()) written = absl::OkStatus();
    FATHOM_RETURN_IF_ERROR(written);
    return term;
  }

 private:
  // RESOURCE_EXHAUSTED: there is no room on the disk or in the user's quota.
  absl::Status Error(const char* what, const std::string& path) const {
    const std::string text =
        fmt::format("term file: cannot {} {}: {}", what, path, std::strerror(errno));
    if (errno == ENOSPC || errno == EDQUOT) {
      return Exhausted("{}; make room there, or give --term-file a path on another disk", text);
    }
    return Unavailable("{}; give --term-file a path in a writable folder", text);
  }

  // A process holds the lock only while it replaces the file. A process that holds it for long is
  // stopped or broken. The lock is polled, because flock has no time-out.
  absl::Status Lock(int lock, const std::string& path) const {
    const auto until = std::chrono::steady_clock::now() + kLockWait;
    while (flock(lock, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return Error("lock", path);
      if (std::chrono::steady_clock::now() >= until) {
        return Unavailable(
            "term file: another process has held the lock of {} for {} s; end that process (fuser "
            "{} names it), or give this cluster a --term-file of its own",
            path, kLockWait.count(), path);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> Read() const {
    const int file = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return errno == ENOENT ? absl::StatusOr<uint64_t>(0) : Error("open", path_);
    absl::Cleanup closer = [file] { close(file); };
    char text[32];
    const ssize_t size = read(file, text, sizeof(text));
    if (size < 0) return Error("read", path_);
    uint64_t stored = 0;
    const char* last = text + size;
    const auto [end, code] = std::from_chars(text, last, stored);
    if (code != std::errc() || !(end == last || (end + 1 == last && *end == '\n'))) {
      return DataLoss(
          "term file {}: not a decimal number; write the highest term ever used into it, or remove "
          "it "
          "when no router or worker of the cluster is alive",
          path_);
    }
    return stored;
  }

  // Replaces the file completely or not at all, even if power is lost.
  absl::Status Replace(const std::string& text) const {
    const std::string temporary = path_ + ".new";
    const int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) return Error("open", temporary);
    absl::Cleanup closer = [file] { close(file); };
    if (absl::Status status = WriteAll(file, text, temporary); !status.ok()) {
      unlink(temporary.c_str());
      return status;
    }
    if (std::rename(temporary.c_str(), path_.c_str()) != 0) return Error("replace", path_);
    const size_t slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    const int directory = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return Error("open", folder);
    absl::Cleanup directory_closer = [directory] { close(directory); };
    return fsync(directory) == 0 ? absl::OkStatus() : Error("sync", folder);
  }

  // Writes into the existing block of the file, so it needs no free space. A number of at most 20
  // bytes at the start of the file lies in one sector, which a disk writes completely or not at
  // all.
  absl::Status Overwrite(const std::string& text) const {
    const int file = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (file < 0) return Error("open", path_);
    absl::Cleanup closer = [file] { close(file); };
    FATHOM_RETURN_IF_ERROR(WriteAll(file, text, path_));
    return ftruncate(file, static_cast<off_t>(text.size())) == 0 ? absl::OkStatus()
                                                                 : Error("cut", path_);
  }

  absl::Status WriteAll(int file, const std::string& text, const std::string& path) const {
    const ssize_t size = write(file, text.data(), text.size());
    if (size >= 0 && size < static_cast<ssize_t>(text.size())) errno = ENOSPC;
    if (size != static_cast<ssize_t>(text.size()) || fsync(file) != 0) return Error("write", path);
    return absl::OkStatus();
  }

  const std::string path_;
};

}  // namespace

std::unique_ptr<TermStore> MakeFileTermStore(std::string path) {
  return std::make_unique<FileTermStore>(std::move(path));
}

std::unique_ptr<TermStore> MakeMemoryTermStore() { return std::make_unique<MemoryTermStore>(); }

}  // namespace fathom::scheduler
