// worker/model_digest.h: what two processes compare to know that they mean the same model. Pure but
// for reading files; any thread. All digests are lower-case hex SHA-256.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fathom::worker {

// Version of the CPU's recipe in docs/NUMERICS.md; a change of any operation's order is a new one.
inline constexpr int32_t kRecipeVersion = 1;

// SHA-256 over a sequence of fields; each goes in with its length before it (u64, little-endian),
// so that
// ("ab", "c") and ("a", "bc") differ.
class DigestBuilder {
 public:
  DigestBuilder();
  ~DigestBuilder();
  DigestBuilder(const DigestBuilder&) = delete;
  DigestBuilder& operator=(const DigestBuilder&) = delete;
  void Add(std::string_view bytes);
  void Add(uint64_t number);
  // REQUIRES: called once, last.
  std::string Finish();

 private:
  void* context_;
};

// Of <folder>/config.json's bytes; router and worker compare it.
absl::StatusOr<std::string> ConfigDigest(const std::filesystem::path& folder);

// Equal fingerprint and equal request: equal tokens.
struct FingerprintParts {
  std::string weights_digest;
  std::string dtype;        // Of computing: "float32" on the CPU.
  std::string device_kind;  // "cpu" or "cuda-sm90".
  int32_t tp = 1;
  int32_t recipe_version = kRecipeVersion;
};
std::string Fingerprint(const FingerprintParts& parts);

}  // namespace fathom::worker
