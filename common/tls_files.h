// common/tls_files.h: the PEM files of one TLS endpoint, and their check at a start. gRPC and
// OpenSSL say little about a file that they cannot use; these messages name the file, what is wrong
// with it, and what to do. Thread: any.
#pragma once

#include <string>
#include <vector>

#include "common/status.h"

namespace fathom {

// The names in the certificates of the processes (DNS names of the subject alternative name). A
// process checks that its peer's certificate has the name of the role that the peer claims.
inline constexpr char kSchedulerName[] = "scheduler.fathom.internal";
inline constexpr char kRouterName[] = "router.fathom.internal";
inline constexpr char kWorkerName[] = "worker.fathom.internal";
// Of `fathom profile`, which traces a worker's steps.
inline constexpr char kOperatorName[] = "operator.fathom.internal";

struct TlsFiles {
  std::string cert;  // The certificate, and after it those between it and the root.
  std::string key;   // Its private key.
  std::string ca;    // Roots of the peers' certificates; empty: peers need none.

  bool on() const { return !cert.empty(); }
};

// The flags that name the files, for messages: "--tls-cert", "--tls-key", "--tls-client-ca".
struct TlsFlags {
  std::string cert, key, ca;
};

// OK also if no file is given. INVALID_ARGUMENT or NOT_FOUND: a file is missing, no PEM, or belongs
// to another key, or the certificate is not valid now. `ca_required`: without it the files are of
// no use. `name`: a DNS name that the certificate must have; empty: any.
absl::Status CheckTlsFiles(const TlsFiles& files, const TlsFlags& flags, bool ca_required,
                           const std::string& name = "");

// The DNS names of the first certificate in a PEM file. INVALID_ARGUMENT: it has none.
absl::StatusOr<std::vector<std::string>> NamesOfCertificate(const std::string& pem);

}  // namespace fathom
