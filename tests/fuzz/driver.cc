// Runs a fuzz target with its seeds and then with mutations of them, for compilers without
// libFuzzer. The number of inputs is FATHOM_FUZZ_RUNS (20,000), or as many as fit into
// FATHOM_FUZZ_SECONDS. Input i is a function of (FATHOM_SEED, i). Both are printed when the target
// aborts, so FATHOM_SEED=<seed> FATHOM_FUZZ_RUNS=<i + 1> repeats the failure.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"

extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace {

uint64_t seed = 1;
uint64_t run = 0;

void PrintPlace() {
  std::fprintf(stderr, "FATHOM_SEED=%llu FATHOM_FUZZ_RUNS=%llu ends here\n",
               static_cast<unsigned long long>(seed), static_cast<unsigned long long>(run + 1));
}

uint64_t Environment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

size_t Below(std::mt19937_64& rng, size_t limit) { return limit == 0 ? 0 : rng() % limit; }

// Bytes and words that are difficult for parsers.
constexpr const char* kTokens[] = {
    "0",
    "-1",
    "9223372036854775807",
    "18446744073709551616",
    "1e308",
    "1e-400",
    "0.5",
    "null",
    "true",
    "\"\"",
    "{}",
    "[]",
    "[[[[[[[[",
    "{\"a\":",
    "\\u0000",
    "\\ud800",
    ",",
    ":",
    "\xff",
    "\xc3\x28",
    " ",
    "\n",
    "../",
    "\"",
};

void Mutate(std::mt19937_64& rng, const std::vector<std::string>& seeds, std::string* input) {
  const size_t at = Below(rng, input->size() + 1);
  const size_t count = Below(rng, 1 + Below(rng, 16));
  switch (rng() % 7) {
    case 0:
      if (at < input->size()) (*input)[at] ^= static_cast<char>(1 << rng() % 8);
      break;
    case 1:
      if (at < input->size()) (*input)[at] = static_cast<char>(rng());
      break;
    case 2:
      input->erase(at, count);
      break;
    case 3:
      input->insert(at, kTokens[rng() % std::size(kTokens)]);
      break;
    case 4: {  // Replaces bytes by a token.
      const std::string token = kTokens[rng() % std::size(kTokens)];
      input->replace(at, std::min(input->size() - at, count), token);
      break;
    }
    case 5: {  // Inserts a piece of another seed.
      const std::string& other = seeds[rng() % seeds.size()];
      const size_t from = Below(rng, other.size());
      input->insert(at, other.substr(from, Below(rng, 64)));
      break;
    }
    default:
      input->resize(at);
  }
}

}  // namespace

int main() {
  seed = Environment("FATHOM_SEED", 1);
  const uint64_t seconds = Environment("FATHOM_FUZZ_SECONDS", 0);
  const uint64_t runs = seconds > 0 ? UINT64_MAX : Environment("FATHOM_FUZZ_RUNS", 20'000);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  std::signal(SIGABRT, [](int) { PrintPlace(); });
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(PrintPlace);
  const std::vector<std::string> seeds = FuzzSeeds();
  for (run = 0; run < runs; ++run) {
    if (seconds > 0 && run % 64 == 0 && std::chrono::steady_clock::now() >= end) break;
    std::string input = seeds[run % seeds.size()];
    std::seed_seq sequence = {seed, run};
    std::mt19937_64 rng(sequence);
    // The seeds come first without a mutation, then with one to eight mutations.
    for (uint64_t i = run < seeds.size() ? 0 : 1 + rng() % 8; i > 0; --i) {
      Mutate(rng, seeds, &input);
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  }
  std::printf("%llu inputs, FATHOM_SEED=%llu\n", static_cast<unsigned long long>(run),
              static_cast<unsigned long long>(seed));
  return 0;
}
