#include "common/flag_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

namespace fathom {
namespace {

constexpr ForeignFlag kForeign[] = {
    {"--max-num-batches", "--max-num-seqs", true, "use --max-num-seqs"},
    {"--max-seq-len", "--max-model-len", true, "use --max-model-len"},
    {"--cache-block-size", "--block-size", true, "use --block-size"},
    {"--kv-cache-memory-bytes", "--kv-cache-memory", true, "use --kv-cache-memory"},
    {"--num-gpu", "--tensor-parallel-size", false,
     "use -tp N to split one copy of the model over N devices, or -dp N for N copies"},
    {"--nccl-debug", "", false, "set the environment variable NCCL_DEBUG=INFO for the workers"},
    {"--disable-kv-cache", "", false,
     "without a KV cache every token costs a pass over the whole text (quadratic), so it cannot be "
     "turned off"},
    {"--enable-chunked-prefill", "", false, "prompts are always computed in chunks; drop the flag"},
    {"--speculative-decoding", "--speculative-method", false,
     "use --speculative-method ngram, or --speculative-model FOLDER for a draft model"},
    {"--disable-log-stats", "", false,
     "statistics are metrics and cost under 0.1 %; drop the flag"},
    {"--enforce-eager", "", false, "there are no graphs on the CPU; drop the flag"},
    {"--api-key", "--api-keys", false,
     "a key in the arguments is seen by all users of the machine; use --api-keys FILE, whose keys "
     "fathom keys new makes"},
    {"--ssl-certfile", "--tls-cert", true, "use --tls-cert"},
    {"--ssl-keyfile", "--tls-key", true, "use --tls-key"},
    {"--ssl-ca-certs", "--tls-client-ca", false, "use --tls-client-ca of fathom-router"},
    {"--temperature", "", false,
     "temperature belongs to the request; the model's generation_config.json has the default"},
    {"--port", "--http-port", false, "use --http-port (HTTP) or --grpc-port (gRPC)"},
    {"--trust-remote-code", "", false, "no code is ever taken from a model folder; drop the flag"},
    {"--tokenizer", "", false, "the tokenizer is tokenizer.json in the folder of --model"},
    {"--revision", "", false, "nothing is downloaded; give the folder of that revision to --model"},
    {"--download-dir", "", false, "nothing is downloaded; --model takes a folder"},
    {"--quantization", "", false,
     "quantized weights are not served yet; give a checkpoint in bf16, fp16 or fp32"},
    {"--kv-cache-dtype", "", false, "keys and values have the type of --dtype; drop the flag"},
    {"--enable-prefix-caching", "", false,
     "the scheduler has the prefix cache: give it to fathom-scheduler or fathom serve"},
    {"--no-enable-prefix-caching", "", false,
     "the scheduler has the prefix cache: give it to fathom-scheduler or fathom serve"},
    {"--prefix-caching-hash-algo", "", false,
     "a hash only finds cached blocks, whose tokens are then compared; drop the flag"},
    {"--cpu-offload-gb", "", false,
     "weights stay in the device's memory; divide them over more devices (-tp N, -pp N)"},
    {"--enable-lora", "", false, "adapters are not served yet; merge the adapter into the weights"},
    {"--seed", "", false,
     "the seed belongs to the request; without one it follows from the request's id"},
    {"--generation-config", "--override-generation-config", false,
     "the model's generation_config.json counts; --override-generation-config changes its keys"},
    {"--async-scheduling", "", false,
     "the next step is always planned while one runs; drop the flag"},
    {"--distributed-executor-backend", "", false,
     "ranks are processes that meet over gRPC; drop the flag"},
    {"--attention-backend", "", false, "each device has one attention; drop the flag"},
    {"--shutdown-timeout", "--drain-timeout-s", false, "use --drain-timeout-s"},
    {"--enable-log-requests", "--log-requests", false, "use --log-requests summary"},
};

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

const ForeignFlag* FindForeignFlag(std::string_view name) {
  for (const ForeignFlag& flag : kForeign) {
    if (name == flag.name) return &flag;
  }
  return nullptr;
}

std::string NearestName(std::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(name.size() / 3, 2) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(name, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::optional<int64_t> ParseBytes(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !(number >= 0)) return std::nullopt;
  std::string unit(end, text.data() + text.size());
  for (char& c : unit) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (unit.ends_with("IB")) {
    unit.resize(unit.size() - 2);
  } else if (unit.ends_with("B")) {
    unit.resize(unit.size() - 1);
  }
  int shift = 0;
  if (!unit.empty()) {
    const size_t power = std::string_view("KMGT").find(unit);
    if (unit.size() != 1 || power == std::string_view::npos) return std::nullopt;
    shift = static_cast<int>(power + 1) * 10;
  }
  const double bytes = std::ldexp(number, shift);
  if (bytes >= 9.2e18) return std::nullopt;
  return static_cast<int64_t>(bytes);
}

std::string FormatBytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  if (value == std::floor(value)) return fmt::format("{:.0f} {}", value, kUnits[unit]);
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace fathom
