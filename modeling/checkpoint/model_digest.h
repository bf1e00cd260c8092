// modeling/checkpoint/model_digest.h: the digests by which two processes check that they use the
// same model. Pure except for reading files; any thread. All digests are lower-case hex SHA-256.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "modeling/config/model_config.h"

namespace fathom {

// The version of the CPU recipe in docs/NUMERICS.md. A change in the order of any operation needs a
// new version.
inline constexpr int32_t kRecipeVersion = 2;

// The SHA-256 of bytes that are added piece by piece.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Update(std::string_view bytes);
  // REQUIRES: called once, as the last call.
  std::string Hex();

 private:
  void* const context_;  // OpenSSL's type, which this header does not include.
};

// The SHA-256 of a sequence of fields. The length of a text (u64, little-endian) is hashed before
// it, so that ("ab", "c") and ("a", "bc") differ.
class DigestBuilder {
 public:
  void Add(std::string_view bytes);
  void Add(uint64_t number);
  // REQUIRES: called once, as the last call.
  std::string Finish();

 private:
  Sha256 sha_;
};

// The digest of the text that the configuration was parsed from, overrides included. Router and
// worker compare it.
std::string ConfigDigest(const ModelConfig& config);

// Equal fingerprints and equal requests give equal tokens.
struct FingerprintParts {
  std::string weights_digest;
  std::string dtype;        // The type of the computation: "float32" on the CPU.
  std::string device_kind;  // "cpu" or "cuda-sm90".
  int32_t tp = 1;
  int32_t recipe_version = kRecipeVersion;
};
// 32 hex digits.
std::string Fingerprint(const FingerprintParts& parts);

}  // namespace fathom
