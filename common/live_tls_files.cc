#include "common/live_tls_files.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace fathom {
namespace {

constexpr int64_t kPemMax = 1 << 20;

absl::Status WriteMemory(int file, const std::string& text) {
  const bool written =
      ftruncate(file, 0) == 0 && pwrite(file, text.data(), text.size(), 0) == std::ssize(text);
  if (written) return absl::OkStatus();
  return Unavailable("a certificate cannot be kept in memory: {}", std::strerror(errno));
}

}  // namespace

LiveTlsFiles::LiveTlsFiles(const TlsFiles& files, const TlsFlags& flags, bool ca_required,
                           const std::string& name)
    : files_(files),
      flags_(flags),
      ca_required_(ca_required),
      name_(name),
      watched_{WatchedFile(flags.cert, files.cert, kPemMax),
               WatchedFile(flags.key, files.key, kPemMax),
               WatchedFile(flags.ca, files.ca, kPemMax)} {}

LiveTlsFiles::~LiveTlsFiles() {
  for (const int file : memory_) {
    if (file >= 0) close(file);
  }
}

absl::StatusOr<std::unique_ptr<LiveTlsFiles>> LiveTlsFiles::Open(const TlsFiles& files,
                                                                 const TlsFlags& flags,
                                                                 bool ca_required,
                                                                 const std::string& name) {
  std::unique_ptr<LiveTlsFiles> live(new LiveTlsFiles(files, flags, ca_required, name));
  if (files.cert.empty() && files.key.empty() && files.ca.empty()) return live;
  FATHOM_RETURN_IF_ERROR(CheckTlsFiles(files, flags, ca_required, name));
  std::string* const copies[] = {&live->copies_.cert, &live->copies_.key, &live->copies_.ca};
  for (size_t i = 0; i < live->memory_.size(); ++i) {
    if (live->watched_[i].path().empty()) continue;
    live->memory_[i] = memfd_create("fathom-tls", MFD_CLOEXEC);
    if (live->memory_[i] < 0) {
      return Unavailable("a certificate cannot be kept in memory: {}", std::strerror(errno));
    }
    *copies[i] = fmt::format("/proc/self/fd/{}", live->memory_[i]);
  }
  FATHOM_RETURN_IF_ERROR(live->Take());
  return live;
}

absl::Status LiveTlsFiles::Take() {
  std::array<std::string, 3> texts;
  absl::Status read;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (memory_[i] < 0) continue;
    // All are read, so that one that cannot be used is reported once and not each time.
    auto text = watched_[i].Read();
    if (text.ok()) {
      texts[i] = *std::move(text);
    } else if (read.ok()) {
      read = text.status();
    }
  }
  FATHOM_RETURN_IF_ERROR(read);
  FATHOM_RETURN_IF_ERROR(CheckTlsFiles(files_, flags_, ca_required_, name_));
  for (size_t i = 0; i < texts.size(); ++i) {
    if (memory_[i] >= 0) FATHOM_RETURN_IF_ERROR(WriteMemory(memory_[i], texts[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> LiveTlsFiles::Reload() {
  bool changed = false;
  for (size_t i = 0; i < memory_.size(); ++i) {
    changed = changed || (memory_[i] >= 0 && watched_[i].Changed());
  }
  if (!changed) return false;
  FATHOM_RETURN_IF_ERROR(Take());
  return true;
}

}  // namespace fathom
