// common/live_tls_files.h: the files of a TLS endpoint while the process runs. gRPC and the HTTP
// server watch copies in memory, which get the new content only when all files belong together and
// can be used; so a file that is wrong, or half of a new pair, changes nothing.
// Thread: files() any; Reload belongs to one thread.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "common/status.h"
#include "common/tls_files.h"
#include "common/watched_file.h"

namespace fathom {

class LiveTlsFiles {
 public:
  // The errors of CheckTlsFiles; UNAVAILABLE: no memory for the copies. Without files: no TLS.
  static absl::StatusOr<std::unique_ptr<LiveTlsFiles>> Open(const TlsFiles& files,
                                                            const TlsFlags& flags, bool ca_required,
                                                            const std::string& name = "");
  ~LiveTlsFiles();

  // The copies, which exist as long as this object.
  const TlsFiles& files() const { return copies_; }

  // Takes the files if one has changed. An error changes nothing. Returns whether they are new.
  absl::StatusOr<bool> Reload();

 private:
  LiveTlsFiles(const TlsFiles& files, const TlsFlags& flags, bool ca_required,
               const std::string& name);
  absl::Status Take();

  const TlsFiles files_;
  const TlsFlags flags_;
  const bool ca_required_;
  const std::string name_;
  std::array<WatchedFile, 3> watched_;  // Certificate, key, roots.
  std::array<int, 3> memory_ = {-1, -1, -1};
  TlsFiles copies_;
};

}  // namespace fathom
