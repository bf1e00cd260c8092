// http/tls_context.h: the certificate of an HTTP server, which may be replaced while it runs. New
// connections use the latest one; those that are open go on with theirs.
// Thread: current() may be called by any; Reload belongs to the main loop. One mutex.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <mutex>
#include <string>

#include "common/status.h"
#include "common/tls_files.h"
#include "common/watched_file.h"

namespace fathom::http {

class TlsContext {
 public:
  // The errors of CheckTlsFiles, or INVALID_ARGUMENT if OpenSSL cannot use the files. With files.ca
  // a client must have a certificate of it.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Load(const TlsFiles& files,
                                                          const TlsFlags& flags);

  // Reads the files again if one has changed. An error changes nothing. Returns whether they are
  // new.
  absl::StatusOr<bool> Reload();

  std::shared_ptr<boost::asio::ssl::context> current() const;

 private:
  TlsContext(const TlsFiles& files, const TlsFlags& flags);
  absl::Status Read();

  const TlsFiles files_;
  const TlsFlags flags_;
  WatchedFile cert_, key_;
  mutable std::mutex mutex_;  // Guards context_.
  std::shared_ptr<boost::asio::ssl::context> context_;
};

}  // namespace fathom::http
