// modeling/checkpoint/model_digest.h: what two processes compare to know that they mean the same
// model. Pure but for reading files; any thread. All digests are lower-case hex SHA-256.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "modeling/config/model_config.h"

namespace fathom::worker {

// Version of the CPU's recipe in docs/NUMERICS.md; a change of any operation's order is a new one.
inline constexpr int32_t kRecipeVersion = 2;

// SHA-256 of bytes that come piece by piece.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Update(std::string_view bytes);
  // REQUIRES: called once, last.
  std::string Hex();

 private:
  void* const context_;  // OpenSSL's, kept out of this header.
};

// SHA-256 over a sequence of fields: a text goes in with its length before it (u64, little-endian),
// so that ("ab", "c") and ("a", "bc") differ.
class DigestBuilder {
 public:
  void Add(std::string_view bytes);
  void Add(uint64_t number);
  // REQUIRES: called once, last.
  std::string Finish();

 private:
  Sha256 sha_;
};

// Of the text that the configuration was read from, overrides included; router and worker compare
// it.
std::string ConfigDigest(const ModelConfig& config);

// Equal fingerprint and equal request: equal tokens.
struct FingerprintParts {
  std::string weights_digest;
  std::string dtype;        // Of computing: "float32" on the CPU.
  std::string device_kind;  // "cpu" or "cuda-sm90".
  int32_t tp = 1;
  int32_t recipe_version = kRecipeVersion;
};
// 32 hex digits.
std::string Fingerprint(const FingerprintParts& parts);

}  // namespace fathom::worker
