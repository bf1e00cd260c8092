#include "common/tls_files.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <memory>

#include "common/watched_file.h"

namespace fathom {
namespace {

constexpr int64_t kPemBytesMax = 1 << 20;

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using Bio = std::unique_ptr<BIO, Freed<&BIO_free>>;
using Certificate = std::unique_ptr<X509, Freed<&X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<&EVP_PKEY_free>>;

absl::StatusOr<std::string> ReadPem(const std::string& flag, const std::string& path) {
  return WatchedFile(flag, path, kPemBytesMax).Read();
}

Bio BioOf(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

Certificate CertificateOf(const std::string& pem) {
  const Bio bio = BioOf(pem);
  return Certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
}

// No passphrase is asked for: a server has no terminal.
int NoPassphrase(char*, int, int, void*) { return 0; }

std::string TimeOf(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return "?";
  char text[32] = {};
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

absl::Status CheckTimes(const X509* certificate, const std::string& what) {
  const ASN1_TIME* const begin = X509_get0_notBefore(certificate);
  const ASN1_TIME* const end = X509_get0_notAfter(certificate);
  if (X509_cmp_current_time(begin) > 0) {
    return Invalid("{}: the certificate is valid from {} on; is this machine's clock right?", what,
                   TimeOf(begin));
  }
  if (X509_cmp_current_time(end) < 0) {
    return Invalid("{}: the certificate expired at {}; put a new one in its place", what,
                   TimeOf(end));
  }
  return absl::OkStatus();
}

absl::Status CheckPair(const TlsFiles& files, const TlsFlags& flags, const std::string& name) {
  const std::string cert_what = flags.cert + " " + files.cert;
  FATHOM_ASSIGN_OR_RETURN(const std::string cert_pem, ReadPem(flags.cert, files.cert));
  FATHOM_ASSIGN_OR_RETURN(const std::string key_pem, ReadPem(flags.key, files.key));
  const Certificate certificate = CertificateOf(cert_pem);
  if (certificate == nullptr) {
    return Invalid("{}: is no certificate in PEM (-----BEGIN CERTIFICATE-----)", cert_what);
  }
  const Bio bio = BioOf(key_pem);
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &NoPassphrase, nullptr));
  if (key == nullptr) {
    return Invalid(
        "{} {}: is no private key in PEM, or one with a passphrase, which a server "
        "cannot ask for",
        flags.key, files.key);
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return Invalid("{} {}: the key does not belong to the certificate {}", flags.key, files.key,
                   files.cert);
  }
  FATHOM_RETURN_IF_ERROR(CheckTimes(certificate.get(), cert_what));
  if (name.empty()) return absl::OkStatus();
  const auto names = NamesOfCertificate(cert_pem);
  if (names.ok() && std::ranges::find(*names, name) != names->end()) return absl::OkStatus();
  return Invalid(
      "{}: the certificate does not have the DNS name {}, by which peers know this role; issue one "
      "that has it (`fathom certs` does)",
      cert_what, name);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> NamesOfCertificate(const std::string& pem) {
  const Certificate certificate = CertificateOf(pem);
  if (certificate == nullptr) return Invalid("no certificate in PEM");
  std::vector<std::string> found;
  auto* const names = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* const one = sk_GENERAL_NAME_value(names, i);
    if (one->type != GEN_DNS) continue;
    found.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(one->d.dNSName)),
                       static_cast<size_t>(ASN1_STRING_length(one->d.dNSName)));
  }
  GENERAL_NAMES_free(names);
  return found;
}

absl::Status CheckTlsFiles(const TlsFiles& files, const TlsFlags& flags, bool ca_required,
                           const std::string& name) {
  if (files.cert.empty() && files.key.empty() && files.ca.empty()) return absl::OkStatus();
  if (files.cert.empty() || files.key.empty() || (ca_required && files.ca.empty())) {
    return Invalid("{} '{}', {} '{}', {} '{}': give {}, or none of them", flags.cert, files.cert,
                   flags.key, files.key, flags.ca, files.ca,
                   ca_required ? "all three" : "the first two");
  }
  FATHOM_RETURN_IF_ERROR(CheckPair(files, flags, name));
  if (files.ca.empty()) return absl::OkStatus();
  FATHOM_ASSIGN_OR_RETURN(const std::string ca_pem, ReadPem(flags.ca, files.ca));
  if (CertificateOf(ca_pem) != nullptr) return absl::OkStatus();
  return Invalid("{} {}: is no certificate in PEM (-----BEGIN CERTIFICATE-----)", flags.ca,
                 files.ca);
}

}  // namespace fathom
