#include "cli/access/certificates.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <memory>

namespace fathom::client {
namespace {

constexpr long kHourS = 3600;
constexpr long kDayS = 24 * kHourS;

template <auto Free>
struct FreedBy {
  template <class T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using KeyPtr = std::unique_ptr<EVP_PKEY, FreedBy<&EVP_PKEY_free>>;
using CertificatePtr = std::unique_ptr<X509, FreedBy<&X509_free>>;
using BioPtr = std::unique_ptr<BIO, FreedBy<&BIO_free>>;

std::string PemOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

bool AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  if (extension == nullptr) return false;
  const bool added = X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

bool IsAddress(const std::string& host) {
  std::array<unsigned char, 16> bytes{};
  return inet_pton(AF_INET, host.c_str(), bytes.data()) == 1 ||
         inet_pton(AF_INET6, host.c_str(), bytes.data()) == 1;
}

// A host goes into a list of OpenSSL's own, where a comma would begin another entry.
bool IsHost(const std::string& host) {
  return !host.empty() && host.size() <= 253 &&
         host.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:*") ==
             std::string::npos;
}

// Names, serial number, times and key.
bool FillCertificate(X509* certificate, EVP_PKEY* key, const CertificateOptions& options) {
  std::array<unsigned char, 16> serial{};
  if (RAND_bytes(serial.data(), serial.size()) != 1) return false;
  serial[0] &= 0x7f;
  BIGNUM* const number = BN_bin2bn(serial.data(), serial.size(), nullptr);
  BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
  BN_free(number);
  const auto* const name = reinterpret_cast<const unsigned char*>(options.common_name.c_str());
  const bool expired = options.days < 0;
  return X509_set_version(certificate, 2) == 1 &&
         X509_gmtime_adj(X509_getm_notBefore(certificate),
                         expired ? options.days * kDayS : -kHourS) != nullptr &&
         X509_gmtime_adj(X509_getm_notAfter(certificate),
                         expired ? -kHourS / 60 : options.days * kDayS) != nullptr &&
         X509_set_pubkey(certificate, key) == 1 &&
         X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8, name,
                                    -1, -1, 0) == 1;
}

absl::StatusOr<KeyAndCertificate> Signed(X509* certificate, EVP_PKEY* key, EVP_PKEY* signer) {
  const BioPtr key_bio(BIO_new(BIO_s_mem())), certificate_bio(BIO_new(BIO_s_mem()));
  if (X509_sign(certificate, signer, EVP_sha256()) == 0 ||
      PEM_write_bio_PrivateKey(key_bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1 ||
      PEM_write_bio_X509(certificate_bio.get(), certificate) != 1) {
    return Internal("OpenSSL cannot sign or write the certificate");
  }
  return KeyAndCertificate{PemOf(key_bio.get()), PemOf(certificate_bio.get())};
}

}  // namespace

absl::StatusOr<KeyAndCertificate> MakeRoot(const CertificateOptions& options) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  const CertificatePtr root(X509_new());
  if (key == nullptr || root == nullptr || !FillCertificate(root.get(), key.get(), options) ||
      X509_set_issuer_name(root.get(), X509_get_subject_name(root.get())) != 1 ||
      !AddExtension(root.get(), root.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !AddExtension(root.get(), root.get(), NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !AddExtension(root.get(), root.get(), NID_subject_key_identifier, "hash")) {
    return Internal("OpenSSL cannot make a root");
  }
  return Signed(root.get(), key.get(), key.get());
}

absl::StatusOr<KeyAndCertificate> MakeCertificate(const CertificateOptions& options,
                                                  const KeyAndCertificate& root) {
  const BioPtr root_bio(
      BIO_new_mem_buf(root.certificate.data(), static_cast<int>(root.certificate.size())));
  const BioPtr signer_bio(BIO_new_mem_buf(root.key.data(), static_cast<int>(root.key.size())));
  const CertificatePtr issuer(PEM_read_bio_X509(root_bio.get(), nullptr, nullptr, nullptr));
  const KeyPtr signer(PEM_read_bio_PrivateKey(signer_bio.get(), nullptr, nullptr, nullptr));
  if (issuer == nullptr || signer == nullptr ||
      X509_check_private_key(issuer.get(), signer.get()) != 1) {
    return Invalid("the root's certificate and key do not belong together, or are no PEM");
  }
  std::string names;
  for (const std::string& host : options.hosts) {
    if (!IsHost(host)) return Invalid("'{}' is no DNS name and no address", host);
    names += fmt::format("{}{}:{}", names.empty() ? "" : ",", IsAddress(host) ? "IP" : "DNS", host);
  }
  const KeyPtr key(EVP_EC_gen("P-256"));
  const CertificatePtr made(X509_new());
  if (key == nullptr || made == nullptr || !FillCertificate(made.get(), key.get(), options) ||
      X509_set_issuer_name(made.get(), X509_get_subject_name(issuer.get())) != 1 ||
      !AddExtension(made.get(), issuer.get(), NID_basic_constraints, "critical,CA:FALSE") ||
      !AddExtension(made.get(), issuer.get(), NID_key_usage, "critical,digitalSignature") ||
      !AddExtension(made.get(), issuer.get(), NID_ext_key_usage, "serverAuth,clientAuth") ||
      !AddExtension(made.get(), issuer.get(), NID_subject_key_identifier, "hash") ||
      !AddExtension(made.get(), issuer.get(), NID_authority_key_identifier, "keyid") ||
      (!names.empty() && !AddExtension(made.get(), issuer.get(), NID_subject_alt_name, names))) {
    return Internal("OpenSSL cannot make a certificate for {}", options.common_name);
  }
  return Signed(made.get(), key.get(), signer.get());
}

}  // namespace fathom::client
