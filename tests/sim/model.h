// tests/sim/model.h: the language model of the simulation: a token is a hash of the seed, its
// position, all ids before it and the group's fingerprint, so the simulation knows every expected
// token. The file also has the seed of a run.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cluster/request.h"

namespace fathom::sim {

inline constexpr TokenId kVocab = 64;
inline constexpr TokenId kEndToken = 0;
inline constexpr TokenId kStopToken = 1;

inline uint64_t TestSeed(uint64_t otherwise) {
  const char* text = std::getenv("FATHOM_SEED");
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

inline uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9E3779B97F4A7C15u ^ (b + 0xD1B54A32D192ED03u);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

inline uint64_t Mix(uint64_t a, std::string_view text) {
  for (char c : text) a = Mix(a, static_cast<unsigned char>(c));
  return Mix(a, text.size());
}

// The hash of all ids up to and including `id`; 0 before the first.
inline uint64_t PrefixWith(uint64_t prefix, TokenId id) {
  return Mix(prefix, static_cast<uint64_t>(id));
}

inline TokenId TokenAt(uint64_t seed, int32_t position, uint64_t prefix,
                       std::string_view fingerprint, int32_t sequence = 0) {
  const uint64_t key = seed + static_cast<uint64_t>(sequence);
  const uint64_t h = Mix(Mix(Mix(key, static_cast<uint64_t>(position)), prefix), fingerprint);
  return static_cast<TokenId>(h % kVocab);
}

inline TokenLogprob LogprobAt(uint64_t prefix, TokenId id) {
  return {.id = id, .logprob = -static_cast<float>(PrefixWith(prefix, id) % 1000)};
}

// The position at which the logits of this request are not finite; -1: never (99 of 100 requests).
inline int32_t FaultAt(uint64_t seed) {
  const uint64_t h = Mix(seed, 77);
  return h % 100 == 0 ? static_cast<int32_t>(h / 100 % 12) : -1;
}

}  // namespace fathom::sim
