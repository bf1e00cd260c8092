#include "modeling/checkpoint/model_digest.h"

#include <openssl/evp.h>

#include <array>
#include <fstream>

#include "common/check.h"
#include "common/status.h"
#include "modeling/config/model_config.h"

namespace fathom {
namespace {

// Half of a SHA-256: long enough to tell fingerprints apart, and short enough for every reply.
constexpr size_t kFingerprintDigits = 32;

std::string Hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes) {
    text += kDigits[static_cast<uint8_t>(byte) >> 4];
    text += kDigits[static_cast<uint8_t>(byte) & 15];
  }
  return text;
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  FATHOM_CHECK(context_ != nullptr &&
               EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256::Update(std::string_view bytes) {
  FATHOM_CHECK(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), bytes.data(), bytes.size()) ==
               1);
}

std::string Sha256::Hex() {
  std::array<char, 32> digest;
  FATHOM_CHECK(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_),
                                  reinterpret_cast<unsigned char*>(digest.data()), nullptr) == 1);
  return fathom::Hex({digest.data(), digest.size()});
}

void DigestBuilder::Add(std::string_view bytes) {
  Add(uint64_t{bytes.size()});
  sha_.Update(bytes);
}

void DigestBuilder::Add(uint64_t number) {
  std::array<char, 8> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(number >> (8 * i));
  sha_.Update({bytes.data(), bytes.size()});
}

std::string DigestBuilder::Finish() { return sha_.Hex(); }

std::string ConfigDigest(const ModelConfig& config) {
  Sha256 sha;
  sha.Update(config.source.text);
  return sha.Hex();
}

std::string Fingerprint(const FingerprintParts& parts) {
  DigestBuilder digest;
  digest.Add(parts.weights_digest);
  digest.Add(parts.dtype);
  digest.Add(parts.device_kind);
  digest.Add(static_cast<uint64_t>(parts.tp));
  digest.Add(static_cast<uint64_t>(parts.recipe_version));
  return digest.Finish().substr(0, kFingerprintDigits);
}

}  // namespace fathom
