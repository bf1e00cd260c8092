// cli/access/certificates.h: makes certificates for development and tests: a root, and certificates
// of it. EC keys on P-256, signed with SHA-256. Production has its own authority, e.g.
// cert-manager. Thread: any.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"

namespace fathom::client {

// Both in PEM.
struct KeyAndCertificate {
  std::string key, certificate;
};

struct CertificateOptions {
  std::string common_name;
  std::vector<std::string> hosts;  // DNS names and IP addresses.
  int32_t days = 365;              // Valid from an hour ago; below 0: it has expired already.
};

absl::StatusOr<KeyAndCertificate> MakeRoot(const CertificateOptions& options);
// INVALID_ARGUMENT: `root` is no root with its key.
absl::StatusOr<KeyAndCertificate> MakeCertificate(const CertificateOptions& options,
                                                  const KeyAndCertificate& root);

}  // namespace fathom::client
