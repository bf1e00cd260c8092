// Random weights for planning and benchmarks: nothing is read but config.json.
#include <cmath>
#include <cstring>
#include <map>

#include "common/check.h"
#include "common/status.h"
#include "worker/checkpoint_impl.h"
#include "worker/model_digest.h"

namespace fathom::worker {
namespace {

constexpr float kDeviation = 0.02f;

// A hash of 64 bits whose output bits all depend on all input bits (SplitMix64's finalizer).
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// Nearly normal: the sum of four uniform 16-bit numbers, scaled to the deviation.
float Value(uint64_t key, int64_t element) {
  const uint64_t bits = Mix(key + static_cast<uint64_t>(element) * 0x9E3779B97F4A7C15);
  const auto sum = static_cast<int64_t>((bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) +
                                        ((bits >> 32) & 0xFFFF) + (bits >> 48));
  constexpr int64_t kMean = 2 * 0xFFFF;
  constexpr float kSumDeviation = 37837.2f;  // sqrt(4 * (65536^2 - 1) / 12)
  return static_cast<float>(sum - kMean) * (kDeviation / kSumDeviation);
}

uint16_t ToBf16(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// REQUIRES: |value| < 65504. What is below fp16's normal numbers becomes zero.
uint16_t ToF16(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t rounded = (bits & 0x7FFFFFFF) + 0xFFF + (bits >> 13 & 1);
  constexpr uint32_t kSmallestNormal = 0x38800000;  // 2^-14 as fp32.
  if (rounded < kSmallestNormal) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | (rounded - (112u << 23)) >> 13);
}

void Store(StoredType type, float value, std::byte* target) {
  if (type == StoredType::kF32) {
    std::memcpy(target, &value, sizeof(value));
    return;
  }
  const uint16_t half = type == StoredType::kBf16 ? ToBf16(value) : ToF16(value);
  std::memcpy(target, &half, sizeof(half));
}

class DummyCheckpoint : public Checkpoint {
 public:
  DummyCheckpoint(const ModelConfig& config, uint64_t seed, std::string digest)
      : type_(config.stored_type.value_or(StoredType::kBf16)), digest_(std::move(digest)) {
    for (TensorSpec& spec : ExpectedTensors(config)) {
      const uint64_t key = Mix(seed + keys_.size() * 0xD1342543DE82EF95 + 1);
      keys_.emplace(spec.name, Entry{key, std::move(spec.shape)});
    }
  }

  StoredType stored_type() const override { return type_; }
  const std::string& weights_digest() const override { return digest_; }

  absl::StatusOr<HostTensor> Load(std::string_view name, const TensorSlice& slice) const override {
    const auto found = keys_.find(name);
    FATHOM_CHECK(found != keys_.end(), "{}", name);
    const auto& [key, shape] = found->second;
    const int64_t cols = shape.size() > 1 ? shape[1] : 1;
    const bool is_norm = shape.size() == 1 && name.find("norm") != std::string_view::npos;
    HostTensor target(type_, slice.rows(), slice.cols());
    std::byte* next = target.data();
    for (int64_t row = slice.row_begin; row < slice.row_end; ++row) {
      for (int64_t col = slice.col_begin; col < slice.col_end; ++col, next += BytesOf(type_)) {
        Store(type_, is_norm ? 1.0f : Value(key, row * cols + col), next);
      }
    }
    return target;
  }

 private:
  struct Entry {
    uint64_t key;
    std::vector<int64_t> shape;
  };
  const StoredType type_;
  const std::string digest_;
  std::map<std::string, Entry, std::less<>> keys_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenDummy(const std::filesystem::path& model,
                                                      const ModelConfig& config, uint64_t seed) {
  FATHOM_ASSIGN_OR_RETURN(const std::string config_text, ReadConfigText(ConfigPath(model)));
  DigestBuilder digest;
  digest.Add("dummy");
  digest.Add(config_text);
  digest.Add(seed);
  return std::make_unique<DummyCheckpoint>(config, seed, digest.Finish());
}

}  // namespace fathom::worker
