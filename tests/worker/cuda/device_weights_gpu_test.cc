#include "worker/cuda/device_weights.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/device_weight_rig.h"

namespace fathom::worker {
namespace {

using kernels::DType;
using testing::BitsIn;
using ::testing::HasSubstr;
using testing::MakeModel;
using testing::ModelFiles;
using testing::TempFolder;
using testing::WantedBits;
using testing::WeightVariant;
using testing::WeightVariants;
using testing::WriteFile;
using testing::WriteModel;

constexpr StoredType kStoredTypes[] = {StoredType::kBf16, StoredType::kF16, StoredType::kF32};
constexpr DType kDeviceTypes[] = {DType::kBf16, DType::kF16};

void ExpectCuda(cudaError_t error) { EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

// Device memory filled with NaN, with a guard after it.
class Arena {
 public:
  static constexpr size_t kGuardBytes = 4096;
  explicit Arena(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
    ExpectCuda(cudaMalloc(&data_, bytes_ + kGuardBytes));
    ExpectCuda(cudaMemset(data_, 0xFF, bytes_));
    ExpectCuda(cudaMemset(static_cast<std::byte*>(data_) + bytes_, 0xA5, kGuardBytes));
    ExpectCuda(cudaDeviceSynchronize());
  }
  ~Arena() { ExpectCuda(cudaFree(data_)); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  void* data() const { return data_; }
  const std::byte* At(int64_t offset) const { return static_cast<std::byte*>(data_) + offset; }

  std::vector<std::byte> Download() const {
    std::vector<std::byte> all(bytes_ + kGuardBytes);
    ExpectCuda(cudaMemcpy(all.data(), data_, all.size(), cudaMemcpyDeviceToHost));
    for (size_t i = bytes_; i < all.size(); ++i) {
      if (all[i] == std::byte{0xA5}) continue;
      ADD_FAILURE() << "byte " << i - bytes_ << " after the arena was written";
      break;
    }
    all.resize(bytes_);
    return all;
  }

 private:
  void* data_ = nullptr;
  const size_t bytes_;
};

struct Opened {
  ModelConfig config;
  std::unique_ptr<Checkpoint> checkpoint;
};
Opened Open(const std::filesystem::path& model, LoadFormat format = LoadFormat::kAuto,
            uint64_t seed = 0) {
  const auto config = ReadModelConfig(model);
  EXPECT_TRUE(config.ok()) << ToString(config.status());
  auto checkpoint = OpenCheckpoint(model, *config, format, seed);
  EXPECT_TRUE(checkpoint.ok()) << ToString(checkpoint.status());
  return {*config, *std::move(checkpoint)};
}

void ExpectPointers(const DeviceWeights& weights, const DeviceWeightLayout& layout,
                    const RankModel& model, const Arena& arena) {
  const auto at = [&](Operand operand, int32_t layer = kNoLayer) -> const void* {
    const WeightRegion* region = layout.Find(operand, layer);
    return region == nullptr ? nullptr : arena.At(region->offset);
  };
  EXPECT_EQ(weights.embedding, at(Operand::kEmbedding));
  EXPECT_EQ(weights.final_norm, at(Operand::kFinalNorm));
  ASSERT_EQ(weights.layers.size(), model.layers.size());
  for (const RankLayer& part : model.layers) {
    const int32_t i = part.index;
    const DeviceLayer& layer = weights.layers[static_cast<size_t>(i - model.layers[0].index)];
    EXPECT_EQ(layer.attention_norm, at(Operand::kAttentionNorm, i));
    EXPECT_EQ(layer.qkv, at(Operand::kQkv, i));
    EXPECT_EQ(layer.qkv_bias, at(Operand::kQkvBias, i));
    EXPECT_EQ(layer.q_norm, at(Operand::kQNorm, i));
    EXPECT_EQ(layer.k_norm, at(Operand::kKNorm, i));
    EXPECT_EQ(layer.o, at(Operand::kO, i));
    EXPECT_EQ(layer.ffn_norm, at(Operand::kFfnNorm, i));
    EXPECT_EQ(layer.gate_up, at(Operand::kGateUp, i));
    EXPECT_EQ(layer.down, at(Operand::kDown, i));
  }
  if (!model.tied()) EXPECT_EQ(weights.head, at(Operand::kHead));
}

// Loads the weights and compares every element with the result of Checkpoint::Load.
void ExpectLoads(const Opened& model, DType dtype, const LoadOptions& options,
                 const std::string& what, const RankPlace& place = {}) {
  const RankModel rank = RankOf(SpecOf(model.config), place);
  const DeviceWeightLayout layout = LayOutDeviceWeights(rank, dtype);
  const Arena arena(layout.bytes);
  LoadReport report;
  const auto weights = LoadDeviceWeights(rank, *model.checkpoint, dtype, arena.data(), layout.bytes,
                                         &report, options);
  ASSERT_TRUE(weights.ok()) << what << ": " << ToString(weights.status());
  EXPECT_EQ(report.bytes, layout.bytes);
  EXPECT_EQ(weights->dtype, dtype);
  ExpectPointers(*weights, layout, rank, arena);
  if (rank.tied() && !rank.is_first_stage()) {
    EXPECT_EQ(weights->head, weights->embedding);
  } else if (rank.tied()) {
    const int64_t row = RowsOfRank(model.config.vocab, place.tp) * place.tp_rank;
    EXPECT_EQ(weights->head,
              static_cast<const std::byte*>(weights->embedding) + row * model.config.hidden * 2);
  }
  const std::vector<std::byte> found = arena.Download();
  for (const WeightRegion& region : layout.regions) {
    std::vector<uint32_t> wanted = WantedBits(model.config, *model.checkpoint, region.name,
                                              region.dtype, place.tp, place.tp_rank);
    if (region.operand == Operand::kEmbedding && !rank.is_first_stage()) {
      const TensorSlice head = rank.HeadRowsOfTied();
      wanted = {wanted.begin() + head.row_begin * region.cols,
                wanted.begin() + head.row_end * region.cols};
    }
    ASSERT_EQ(BitsIn(region, found), wanted) << what << ": " << region.name;
    const auto padding = found.begin() + region.offset + region.bytes();
    EXPECT_EQ(std::count(padding, padding + region.padding_bytes(), std::byte{0}),
              region.padding_bytes())
        << what << ": behind " << region.name;
  }
}

TEST(DeviceWeights, EveryElementOfEveryVariant) {
  for (const WeightVariant& variant : WeightVariants()) {
    for (const StoredType stored : kStoredTypes) {
      const TempFolder folder;
      WriteModel(folder.path(), MakeModel(variant, stored, 3), 2);
      const Opened model = Open(folder.path());
      for (const DType dtype : kDeviceTypes) {
        for (const int64_t piece_bytes : {3000, 4 << 20}) {
          LoadOptions options;
          options.readers = 3;
          options.piece_bytes = piece_bytes;
          ExpectLoads(model, dtype, options,
                      fmt::format("{} {} to {}", variant.name, StoredTypeName(stored),
                                  kernels::NameOf(dtype)));
        }
      }
    }
  }
}

TEST(DeviceWeights, VectorsOfAnyType) {
  for (const WeightVariant& variant : WeightVariants()) {
    for (const StoredType stored : kStoredTypes) {
      ModelFiles files = MakeModel(variant, stored, 8);
      testing::MixVectorTypes(files);
      const TempFolder folder;
      WriteModel(folder.path(), files);
      const Opened model = Open(folder.path());
      for (const DType dtype : kDeviceTypes) {
        LoadOptions options;
        options.piece_bytes = 3000;
        ExpectLoads(model, dtype, options,
                    fmt::format("{} {}, vectors mixed", variant.name, StoredTypeName(stored)));
      }
    }
  }
}

TEST(DeviceWeights, BundledModelWithDefaults) {
  const Opened model = Open(testing::BundledModel("fathom-tiny"));
  for (const DType dtype : kDeviceTypes) ExpectLoads(model, dtype, {}, "fathom-tiny");
}

TEST(DeviceWeights, SlicesOfRanks) {
  const TempFolder folder;
  for (const size_t variant : {size_t{1}, size_t{4}}) {
    WriteModel(folder.path(), MakeModel(WeightVariants()[variant], StoredType::kBf16, 4));
    const Opened model = Open(folder.path());
    for (int32_t rank = 0; rank < 4; ++rank) {
      for (const DType dtype : kDeviceTypes) {
        LoadOptions options;
        options.piece_bytes = 5000;
        ExpectLoads(model, dtype, options, fmt::format("rank {}", rank),
                    {.tp = 4, .tp_rank = rank});
      }
    }
  }
}

TEST(DeviceWeights, StagesOfRanks) {
  for (const size_t variant : {size_t{1}, size_t{4}}) {  // Not tied, and tied.
    const TempFolder folder;
    WriteModel(folder.path(), MakeModel(WeightVariants()[variant], StoredType::kBf16, 4));
    const Opened model = Open(folder.path());
    for (int32_t stage = 0; stage < 2; ++stage) {
      for (const int32_t tp : {1, 2}) {
        for (int32_t rank = 0; rank < tp; ++rank) {
          ExpectLoads(model, DType::kBf16, {}, fmt::format("stage {} rank {}", stage, rank),
                      {.tp = tp, .tp_rank = rank, .stage = stage, .stages = 2});
        }
      }
    }
  }
}

TEST(DeviceWeights, RandomOnesAreTheCpus) {
  for (const WeightVariant& variant : WeightVariants()) {
    for (const StoredType stored : kStoredTypes) {
      const TempFolder folder;
      WriteFile(folder / "config.json", MakeModel(variant, stored, 1).config);
      const Opened model = Open(folder.path(), LoadFormat::kDummy, 7);
      ASSERT_EQ(model.checkpoint->stored_type(), stored);
      for (const DType dtype : kDeviceTypes) {
        ExpectLoads(model, dtype, {}, fmt::format("{} {}", variant.name, StoredTypeName(stored)));
        const int32_t tp = variant.heads % 2 == 0 ? 2 : 1;
        ExpectLoads(model, dtype, {}, fmt::format("{} last rank", variant.name),
                    {.tp = tp, .tp_rank = tp - 1});
      }
    }
  }
}

absl::Status Refusal(const ModelFiles& files, DType dtype) {
  const TempFolder folder;
  WriteModel(folder.path(), files);
  const Opened model = Open(folder.path());
  const RankModel rank = RankOf(SpecOf(model.config));
  const int64_t bytes = LayOutDeviceWeights(rank, dtype).bytes;
  const Arena arena(bytes);
  LoadReport report;
  return LoadDeviceWeights(rank, *model.checkpoint, dtype, arena.data(), bytes, &report).status();
}

void SetValue(ModelFiles& model, std::string_view name, size_t index, float value) {
  testing::StoredTensor& tensor = model.Tensor(name);
  std::vector<float> values = testing::ToFloats(tensor.dtype, tensor.bytes);
  values[index] = value;
  const StoredType type = tensor.dtype == "BF16"  ? StoredType::kBf16
                          : tensor.dtype == "F16" ? StoredType::kF16
                                                  : StoredType::kF32;
  tensor.bytes = testing::FromFloats(type, values);
}

TEST(DeviceWeights, ValuesThatAreNotFinite) {
  struct Bad {
    const char* tensor;
    int64_t row, col, cols;
  };
  const Bad kBad[] = {{"model.embed_tokens.weight", 63, 63, 64},
                      {"model.layers.0.self_attn.q_proj.weight", 9, 0, 64},
                      {"model.layers.1.self_attn.k_proj.weight", 24, 3, 64},
                      {"model.layers.1.self_attn.v_proj.weight", 31, 63, 64},
                      {"model.layers.1.mlp.up_proj.weight", 95, 63, 64},
                      {"model.layers.0.mlp.down_proj.weight", 1, 95, 96},
                      {"model.layers.1.input_layernorm.weight", 5, 0, 1},
                      {"model.norm.weight", 63, 0, 1},
                      {"lm_head.weight", 63, 63, 64}};
  for (const StoredType stored : kStoredTypes) {
    for (const Bad& bad : kBad) {
      for (const float value :
           {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        ModelFiles files = MakeModel(WeightVariants()[1], stored, 5);
        SetValue(files, bad.tensor, static_cast<size_t>(bad.row * bad.cols + bad.col), value);
        for (const DType dtype : kDeviceTypes) {
          const absl::Status status = Refusal(files, dtype);
          EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
          EXPECT_THAT(std::string(Message(status)),
                      HasSubstr(fmt::format("model.safetensors: tensor {} has a value that is not "
                                            "finite at [{}, {}]",
                                            bad.tensor, bad.row, bad.col)));
        }
      }
    }
  }
}

TEST(DeviceWeights, ValuesThatFp16CannotHold) {
  for (const StoredType stored : {StoredType::kBf16, StoredType::kF32}) {
    ModelFiles files = MakeModel(WeightVariants()[1], stored, 5);
    SetValue(files, "model.layers.1.mlp.gate_proj.weight", 17 * 64 + 5, 1e5f);
    EXPECT_TRUE(Refusal(files, DType::kBf16).ok());
    const absl::Status status = Refusal(files, DType::kF16);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(Message(status)),
                HasSubstr("model.safetensors: tensor model.layers.1.mlp.gate_proj.weight has a "
                          "value at [17, 5] that float16 cannot hold; use --dtype bfloat16"));
  }
}

TEST(DeviceWeights, SizesThatKernelsDoNotDo) {
  const TempFolder folder;
  WriteModel(folder.path(), testing::SmallModel(1));  // head_dim 4
  const Opened model = Open(folder.path());
  LoadReport report;
  const auto weights = LoadDeviceWeights(RankOf(SpecOf(model.config)), *model.checkpoint,
                                         DType::kBf16, nullptr, 0, &report);
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace fathom::worker
