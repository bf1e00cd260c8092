#include "modeling/checkpoint/weight_pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "common/status.h"
#include "kernels/narrow.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/weight_convert.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/device_weight_rig.h"

namespace fathom {
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
using testing::WriteModel;

constexpr StoredType kStoredTypes[] = {StoredType::kBf16, StoredType::kF16, StoredType::kF32};
constexpr DType kDeviceTypes[] = {DType::kBf16, DType::kF16};

// Copies all pieces into an arena on the host.
absl::StatusOr<std::vector<std::byte>> LoadOnHost(const DeviceWeightLayout& layout,
                                                  const Checkpoint& checkpoint,
                                                  int64_t piece_bytes) {
  const WeightPieces pieces(&layout, &checkpoint, piece_bytes);
  std::vector<std::byte> arena(static_cast<size_t>(layout.bytes), std::byte{0xFF});
  std::vector<std::byte> staging(static_cast<size_t>(pieces.staging_bytes()));
  std::vector<std::byte> scratch(static_cast<size_t>(pieces.scratch_bytes()));
  WeightPieces::Times times;
  for (const WeightPiece& piece : pieces.pieces()) {
    FATHOM_ASSIGN_OR_RETURN(const StagedPiece staged,
                            pieces.Read(piece, staging.data(), scratch.data(), &times));
    const WeightRegion& region = *piece.region;
    EXPECT_EQ(staged.width, region.row_bytes());
    EXPECT_LE(staged.offset + (piece.rows - 1) * staged.pitch + staged.width,
              pieces.staging_bytes());
    for (int64_t row = 0; row < piece.rows; ++row) {
      std::memcpy(arena.data() + region.offset + (piece.first_row + row) * region.row_bytes(),
                  staging.data() + staged.offset + row * staged.pitch,
                  static_cast<size_t>(staged.width));
    }
  }
  return arena;
}

struct Opened {
  ModelConfig config;
  std::unique_ptr<Checkpoint> checkpoint;
};
Opened Open(const TempFolder& folder) {
  const auto config = ReadModelConfig(folder.path());
  EXPECT_TRUE(config.ok()) << ToString(config.status());
  auto checkpoint = OpenCheckpoint(folder.path(), *config);
  EXPECT_TRUE(checkpoint.ok()) << ToString(checkpoint.status());
  return {*config, *std::move(checkpoint)};
}

TEST(WeightPieces, EveryElementIsWhereTheKernelsReadIt) {
  for (const WeightVariant& variant : WeightVariants()) {
    for (const StoredType stored : kStoredTypes) {
      const TempFolder folder;
      WriteModel(folder.path(), MakeModel(variant, stored, 3), 2);
      const Opened model = Open(folder);
      for (const DType dtype : kDeviceTypes) {
        const DeviceWeightLayout layout = LayOutDeviceWeights(RankOf(SpecOf(model.config)), dtype);
        for (const int64_t piece_bytes : {1, 3000, 1 << 20}) {
          const auto arena = LoadOnHost(layout, *model.checkpoint, piece_bytes);
          ASSERT_TRUE(arena.ok()) << ToString(arena.status());
          for (const WeightRegion& region : layout.regions) {
            ASSERT_EQ(BitsIn(region, *arena),
                      WantedBits(model.config, *model.checkpoint, region.name, region.dtype))
                << variant.name << " " << StoredTypeName(stored) << " to " << NameOf(dtype) << ": "
                << region.name;
          }
        }
      }
    }
  }
}

// Norms and biases with different types, also within one region on the GPU.
TEST(WeightPieces, VectorsOfAnyType) {
  for (const WeightVariant& variant : WeightVariants()) {
    for (const StoredType stored : kStoredTypes) {
      ModelFiles files = MakeModel(variant, stored, 8);
      testing::MixVectorTypes(files);
      const TempFolder folder;
      WriteModel(folder.path(), files);
      const Opened model = Open(folder);
      const DeviceWeightLayout layout =
          LayOutDeviceWeights(RankOf(SpecOf(model.config)), DType::kBf16);
      for (const int64_t piece_bytes : {1, 200, 1 << 20}) {
        const auto arena = LoadOnHost(layout, *model.checkpoint, piece_bytes);
        ASSERT_TRUE(arena.ok()) << ToString(arena.status());
        for (const WeightRegion& region : layout.regions) {
          ASSERT_EQ(BitsIn(region, *arena),
                    WantedBits(model.config, *model.checkpoint, region.name, region.dtype))
              << variant.name << " " << StoredTypeName(stored) << ": " << region.name;
        }
      }
    }
  }
}

TEST(WeightPieces, RanksHaveTheirSlices) {
  const TempFolder folder;
  WriteModel(folder.path(), MakeModel(WeightVariants()[3], StoredType::kBf16, 4));
  const Opened model = Open(folder);
  for (const int32_t tp : {2, 4}) {
    for (int32_t rank = 0; rank < tp; ++rank) {
      for (const DType dtype : kDeviceTypes) {  // Copied by columns, and converted.
        const DeviceWeightLayout layout =
            LayOutDeviceWeights(RankOf(SpecOf(model.config), {.tp = tp, .tp_rank = rank}), dtype);
        EXPECT_EQ(layout.bytes,
                  LayOutDeviceWeights(RankOf(SpecOf(model.config), {.tp = tp}), dtype).bytes);
        const auto arena = LoadOnHost(layout, *model.checkpoint, 3000);
        ASSERT_TRUE(arena.ok()) << ToString(arena.status());
        for (const WeightRegion& region : layout.regions) {
          ASSERT_EQ(BitsIn(region, *arena), WantedBits(model.config, *model.checkpoint, region.name,
                                                       region.dtype, tp, rank))
              << "rank " << rank << " of " << tp << ": " << region.name;
        }
      }
    }
  }
}

TEST(WeightPieces, ValuesThatDoNotFitNameTheirTensor) {
  ModelFiles files = MakeModel(WeightVariants()[1], StoredType::kBf16, 5);
  testing::StoredTensor& up = files.Tensor("model.layers.1.mlp.up_proj.weight");  // [96, 64]
  std::vector<float> values = testing::ToFloats(up.dtype, up.bytes);
  values[17 * 64 + 5] = 1e5f;
  up.bytes = testing::FromFloats(StoredType::kBf16, values);
  const TempFolder folder;
  WriteModel(folder.path(), files);
  const Opened model = Open(folder);
  const DeviceWeightLayout bf16 = LayOutDeviceWeights(RankOf(SpecOf(model.config)), DType::kBf16);
  EXPECT_TRUE(LoadOnHost(bf16, *model.checkpoint, 4096).ok());
  const DeviceWeightLayout f16 = LayOutDeviceWeights(RankOf(SpecOf(model.config)), DType::kF16);
  const auto refused = LoadOnHost(f16, *model.checkpoint, 4096);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(refused.status())),
              HasSubstr("model.safetensors: tensor model.layers.1.mlp.up_proj.weight has a value "
                        "at [17, 5] that float16 cannot hold; use --dtype bfloat16"));
}

TEST(WeightPieces, NotFiniteIsFoundInTheFile) {
  const TempFolder folder;
  WriteModel(folder.path(), MakeModel(WeightVariants()[1], StoredType::kBf16, 6));
  const Opened model = Open(folder);
  const DeviceWeightLayout layout = LayOutDeviceWeights(RankOf(SpecOf(model.config)), DType::kBf16);
  const WeightPieces pieces(&layout, model.checkpoint.get(), 4096);
  // Row 8 of a pairing is the first of its second halves.
  const absl::Status status = pieces.NotFinite(*layout.Find(Operand::kGateUp, 0), 16 + 8 + 1, 7);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(Message(status)),
              HasSubstr("model.safetensors: tensor model.layers.0.mlp.up_proj.weight has a value "
                        "that is not finite at [9, 7]"));
  EXPECT_THAT(
      std::string(Message(pieces.NotFinite(*layout.Find(Operand::kQkv, 1), 64 + 16 + 8, 0))),
      HasSubstr("model.layers.1.self_attn.k_proj.weight has a value that is not finite at "
                "[24, 0]"));
}

TEST(WeightPieces, AFileCutShortAfterwardsIsAnError) {
  const TempFolder folder;
  WriteModel(folder.path(), MakeModel(WeightVariants()[0], StoredType::kBf16, 7));
  const Opened model = Open(folder);
  const auto path = folder / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  const DeviceWeightLayout layout = LayOutDeviceWeights(RankOf(SpecOf(model.config)), DType::kBf16);
  const auto arena = LoadOnHost(layout, *model.checkpoint, 4096);
  EXPECT_EQ(arena.status().code(), absl::StatusCode::kDataLoss);
}

TEST(DeviceWeightLayout, RegionsAreAlignedAndApart) {
  for (const WeightVariant& variant : WeightVariants()) {
    const auto config = ParseModelConfig(MakeModel(variant, StoredType::kBf16, 1).config);
    ASSERT_TRUE(config.ok());
    const DeviceWeightLayout layout = LayOutDeviceWeights(RankOf(SpecOf(*config)), DType::kF16);
    int64_t end = 0;
    for (const WeightRegion& region : layout.regions) {
      EXPECT_EQ(region.offset % kDeviceWeightAlignment, 0);
      EXPECT_GE(region.offset, end);
      EXPECT_LT(region.offset - end, kDeviceWeightAlignment);
      end = region.offset + region.bytes() + region.padding_bytes();
      for (int64_t row = 0; row < region.rows; ++row) {
        const SourceRow source = SourceOf(region, row);
        ASSERT_EQ(source.part->map.ToRegion(source.row - source.part->slice.row_begin), row);
      }
    }
    EXPECT_EQ(layout.bytes, LayOutDeviceWeights(RankOf(SpecOf(*config)), DType::kBf16).bytes);
    EXPECT_EQ(layout.Find(Operand::kHead) == nullptr, variant.tied);
    EXPECT_EQ(layout.Find(Operand::kQNorm, 1) != nullptr, config->qk_norm);
    EXPECT_EQ(layout.Find(Operand::kQkvBias, 0) != nullptr, config->qkv_bias);
  }
}

// The GEMM of the LM head has whole tiles of weight rows, equally many on each rank.
TEST(DeviceWeightLayout, TheHeadIsPaddedToWholeTiles) {
  for (const WeightVariant& variant : WeightVariants()) {
    const auto config = ParseModelConfig(MakeModel(variant, StoredType::kBf16, 1).config);
    ASSERT_TRUE(config.ok());
    for (const int32_t tp : {1, 2, 4}) {
      if (variant.heads % tp != 0) continue;
      const int64_t rows = HeadRows(RowsOfRank(config->vocab, tp));
      EXPECT_EQ(rows % kHeadRowsUnit, 0);
      EXPECT_GE(rows * tp, config->vocab);
      for (int32_t rank = 0; rank < tp; ++rank) {
        const DeviceWeightLayout layout =
            LayOutDeviceWeights(RankOf(SpecOf(*config), {.tp = tp, .tp_rank = rank}), DType::kBf16);
        EXPECT_EQ(layout.bytes,
                  LayOutDeviceWeights(RankOf(SpecOf(*config), {.tp = tp}), DType::kBf16).bytes);
        for (const WeightRegion& region : layout.regions) {
          const bool head = region.name == (variant.tied ? "embedding" : "head");
          const int64_t first = variant.tied ? RowsOfRank(config->vocab, tp) * rank : 0;
          if (head) {
            EXPECT_GE(region.rows + region.padding_rows, first + rows) << variant.name;
          } else {
            EXPECT_EQ(region.padding_rows, 0) << region.name;
          }
        }
      }
    }
  }
}

TEST(DeviceWeightLayout, PublishedShape) {
  const auto config = ReadModelConfig(testing::BundledModel("shapes") / "deepseek-llm-7b.json");
  ASSERT_TRUE(config.ok());
  // Every parameter in 2 bytes, and 2 more for each element of a norm.
  const int64_t layer = 4 * 4096 * int64_t{4096} + 3 * 4096 * int64_t{11008} + 2 * 4096;
  const int64_t parameters = 30 * layer + 2 * 102400 * int64_t{4096} + 4096;
  EXPECT_EQ(LayOutDeviceWeights(RankOf(SpecOf(*config)), DType::kBf16).bytes,
            2 * parameters + 2 * 61 * 4096);
}

TEST(DeviceWeightLayout, SizesThatKernelsDoNotDo) {
  ModelFiles model = testing::SmallModel(1);  // head_dim 4, ffn 12
  const auto config = ParseModelConfig(model.config);
  ASSERT_TRUE(config.ok());
  const absl::Status status = CheckDeviceWeights(RankOf(SpecOf(*config)));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("head_dim 4"));
}

float FloatOf(uint32_t bits) {
  float value = 0;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

TEST(Narrow, IsTheNearestEven) {
  // Around every value of the narrow types: the value, the middle to the next one, and their
  // neighbours.
  for (uint32_t half = 0; half < 65536; ++half) {
    _Float16 f16 = 0;
    const auto half_bits = static_cast<uint16_t>(half);
    std::memcpy(&f16, &half_bits, 2);
    uint32_t f16_bits = 0;
    const float f16_wide = static_cast<float>(f16);
    std::memcpy(&f16_bits, &f16_wide, 4);
    for (const uint32_t bits : {f16_bits, half << 16, half << 16 | 0x8000u, f16_bits + 0x1000u}) {
      for (const uint32_t step : {0xFFFFFFFFu, 0u, 1u}) {
        const float value = FloatOf(bits + step);
        if (std::isnan(value)) {
          EXPECT_GT(kernels::NarrowF16(value) & 0x7FFFu, 0x7C00u);
          EXPECT_GT(kernels::NarrowBf16(value) & 0x7FFFu, 0x7F80u);
          continue;
        }
        const std::string f = testing::FromFloats(StoredType::kF16, {value});
        const std::string b = testing::FromFloats(StoredType::kBf16, {value});
        uint16_t want_f16 = 0, want_bf16 = 0;
        std::memcpy(&want_f16, f.data(), 2);
        std::memcpy(&want_bf16, b.data(), 2);
        ASSERT_EQ(kernels::NarrowF16(value), want_f16) << value;
        ASSERT_EQ(kernels::NarrowBf16(value), want_bf16) << value;
      }
    }
  }
}

TEST(ConvertWeights, FindsTheFirstThatOverflows) {
  for (const int64_t bad : {0, 1, 511, 512, 1300, 1999}) {
    std::vector<float> values(2000, 1.0f);
    values[3] = std::numeric_limits<float>::infinity();  // Infinite in the checkpoint, so it is not
                                                         // reported here.
    values[700] = std::numeric_limits<float>::quiet_NaN();
    values[static_cast<size_t>(bad)] = 65520.0f;  // 65504 is the largest of fp16.
    std::vector<uint16_t> out(2000);
    const auto convert = [&](DType type) {
      return ConvertWeights(StoredType::kF32, reinterpret_cast<const std::byte*>(values.data()),
                            type, reinterpret_cast<std::byte*>(out.data()), 2000);
    };
    EXPECT_EQ(convert(DType::kF16), bad);
    EXPECT_EQ(convert(DType::kBf16), std::nullopt);
    values[static_cast<size_t>(bad)] = 65519.0f;
    EXPECT_EQ(convert(DType::kF16), std::nullopt);
    EXPECT_GT(out[700] & 0x7FFF, 0x7C00);
    values[static_cast<size_t>(bad)] = std::numeric_limits<float>::max();
    EXPECT_EQ(convert(DType::kBf16), bad);
  }
}

}  // namespace
}  // namespace fathom
