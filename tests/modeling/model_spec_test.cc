// The model as data, and what follows from it by iteration. Two kinds of models: each published
// shape, and a toy model whose layers all differ, which no architecture makes.
#include "modeling/spec/model_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint_check.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/layout/device_weight_layout.h"
#include "modeling/layout/memory_plan.h"
#include "modeling/spec/device_kinds.h"
#include "modeling/spec/operands.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/model_files.h"
#include "tests/modeling/toy_spec.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using testing::kToyHeadDim;
using testing::kToyHidden;
using testing::kToyVocab;

ModelSpec Toy() {
  return testing::ToySpec({{.heads = 8, .kv_heads = 8, .width = 96},
                           {.heads = 4, .kv_heads = 2, .width = 160, .has_extra_plane = true},
                           {.heads = 8, .kv_heads = 1, .width = 64}});
}

std::vector<std::pair<std::string, ModelSpec>> PublishedSpecs() {
  std::vector<std::pair<std::string, ModelSpec>> specs;
  for (const auto& file : std::filesystem::directory_iterator(testing::BundledModel("shapes"))) {
    if (file.path().extension() != ".json") continue;
    const auto config = ReadModelConfig(file.path());
    EXPECT_TRUE(config.ok()) << ToString(config.status());
    specs.emplace_back(file.path().stem().string(), SpecOf(*config));
  }
  return specs;
}

// Over all ranks, each element is held once, or by the ranks that share it.
void ExpectTiles(const Parameter& tensor, int32_t tp) {
  std::map<std::pair<int64_t, int64_t>, int> rows, cols;
  int64_t held = 0;
  for (int32_t rank = 0; rank < tp; ++rank) {
    const TensorSlice slice = SliceOf(tensor, tp, rank);
    held += slice.elements();
    ++rows[{slice.row_begin, slice.row_end}];
    ++cols[{slice.col_begin, slice.col_end}];
  }
  const auto expect_chain = [&](const auto& ranges, int64_t end, int each) {
    int64_t next = 0;
    for (const auto& [range, count] : ranges) {
      EXPECT_EQ(range.first, next) << tensor.name;
      EXPECT_EQ(count, each) << tensor.name;
      next = range.second;
    }
    EXPECT_EQ(next, end) << tensor.name;
  };
  const int sharing = tensor.split == Split::kWhole    ? tp
                      : tensor.split == Split::kKvRows ? std::max(1, tp / tensor.kv_heads)
                                                       : 1;
  const bool by_cols = tensor.split == Split::kCols;
  expect_chain(rows, tensor.rows(), by_cols ? tp : sharing);
  expect_chain(cols, tensor.cols(), by_cols ? 1 : tp);
  EXPECT_EQ(held, tensor.elements() * sharing) << tensor.name;
}

TEST(RankModel, SlicesTileEveryPublishedTensor) {
  const auto specs = PublishedSpecs();
  ASSERT_GE(specs.size(), 7u);
  for (const auto& [name, spec] : specs) {
    for (const int32_t tp : {1, 2, 4, 8}) {
      if (!CheckTensorParallel(spec, tp).ok()) continue;
      SCOPED_TRACE(fmt::format("{} tp {}", name, tp));
      for (const Parameter& tensor : ExpectedTensors(spec)) ExpectTiles(tensor, tp);
    }
  }
}

// The weights of both memory plans are the sums of what the ranks hold.
TEST(RankModel, BytesOfTheRanksAreThePlans) {
  for (const auto& [name, spec] : PublishedSpecs()) {
    for (const int32_t tp : {1, 2, 4, 8}) {
      if (!CheckTensorParallel(spec, tp).ok()) continue;
      SCOPED_TRACE(fmt::format("{} tp {}", name, tp));
      for (int32_t rank = 0; rank < tp; ++rank) {
        const RankModel model = RankOf(spec, {.tp = tp, .tp_rank = rank});
        int64_t bytes = 0;
        for (const RankParameter* one : model.Parameters()) {
          const bool is_matrix = one->parameter.precision == Precision::kMatrix;
          bytes += one->slice.elements() * (is_matrix ? 2 : 4);
        }
        const DeviceWeightLayout layout = LayOutDeviceWeights(model, kernels::DType::kBf16);
        int64_t laid_out = 0, parts = 0;
        for (const WeightRegion& region : layout.regions) {
          laid_out += region.bytes();
          parts += std::ssize(region.parts);
        }
        EXPECT_EQ(laid_out, bytes);
        EXPECT_EQ(parts, std::ssize(ExpectedTensors(spec)));
        if (rank > 0) continue;  // The plan is for rank 0.
        const auto plan = PlanMemory(spec, {.tp = tp,
                                            .block_tokens = 16,
                                            .step_tokens = 8,
                                            .logits_rows = 8,
                                            .kv_cache_bytes = int64_t{4} << 30});
        ASSERT_TRUE(plan.ok()) << ToString(plan.status());
        EXPECT_EQ(plan->weights_bytes, bytes);
        EXPECT_EQ(plan->kv_bytes_per_token, KvBytes(model, 4, 1));
      }
    }
  }
}

TEST(RankModel, StagesShareTheLayers) {
  for (const auto& [name, spec] : PublishedSpecs()) {
    for (const int32_t stages : {1, 2, 3, 7}) {
      std::vector<std::string> names;
      int32_t next = 0;
      for (int32_t stage = 0; stage < stages; ++stage) {
        const RankModel model = RankOf(spec, {.stage = stage, .stages = stages});
        for (const RankLayer& layer : model.layers) EXPECT_EQ(layer.index, next++);
        EXPECT_FALSE(model.layers.empty());
        EXPECT_EQ(model.embedding.has_value(), stage == 0);
        EXPECT_EQ(model.final_norm.has_value(), stage + 1 == stages);
        EXPECT_EQ(model.lm_head.has_value(), stage + 1 == stages);
        for (const RankParameter* one : model.Parameters()) names.push_back(one->parameter.name);
      }
      std::vector<std::string> expected;
      for (const Parameter& tensor : ExpectedTensors(spec)) expected.push_back(tensor.name);
      EXPECT_EQ(names, expected) << name << " in " << stages;
    }
  }
  ModelSpec tied = Toy();
  tied.lm_head.reset();
  EXPECT_TRUE(RankOf(tied, {.stage = 2, .stages = 3}).embedding);
  EXPECT_FALSE(RankOf(tied, {.stage = 1, .stages = 3}).embedding);
  EXPECT_TRUE(RankOf(tied, {.stage = 2, .stages = 3}).tied());
  const TensorSlice head =
      RankOf(tied, {.tp = 4, .tp_rank = 3, .stage = 2, .stages = 3}).HeadRowsOfTied();
  EXPECT_EQ(head, (TensorSlice{48, 61, 0, kToyHidden}));
  EXPECT_FALSE(RankOf(tied, {.stage = 0, .stages = 3}).tied());
}

TEST(ToySpec, TensorsAndSlicesOfEachLayer) {
  const ModelSpec spec = Toy();
  const std::vector<Parameter> tensors = ExpectedTensors(spec);
  ASSERT_EQ(tensors.size(), 3 + 3 * 9u);
  EXPECT_EQ(tensors.front().name, "toy.embedding");
  EXPECT_EQ(tensors.back().name, "toy.head");
  for (const int32_t tp : {1, 2, 4}) {
    ASSERT_TRUE(CheckTensorParallel(spec, tp).ok()) << tp;
    for (const Parameter& tensor : tensors) ExpectTiles(tensor, tp);
  }
  const RankModel last = RankOf(spec, {.tp = 4, .tp_rank = 3});
  EXPECT_EQ(last.layers[0].attention.kv_heads, 2);
  EXPECT_EQ(last.layers[1].attention.kv_heads, 1);
  EXPECT_EQ(last.layers[2].attention.kv_heads, 1);
  EXPECT_EQ(last.layers[1].mlp.width, 40);
  EXPECT_EQ(last.lm_head->slice.rows(), 61 - 3 * 16);
  const LayerWidths widest = WidestOf(last);
  EXPECT_EQ(widest.qkv_rows, (2 + 2 * 2) * kToyHeadDim);
  EXPECT_EQ(widest.mlp, 40);
  // The message names the layer that does not fit.
  const auto refused = CheckTensorParallel(spec, 8);
  EXPECT_THAT(std::string(Message(refused)),
              AllOf(HasSubstr("num_attention_heads 4"), HasSubstr("intermediate_size 160"),
                    HasSubstr("use one of 1, 2, 4")));
}

TEST(ToySpec, ParametersAndKvBytesAreSumsOverLayers) {
  const ModelSpec spec = Toy();
  int64_t matrices = 0;
  for (const auto& [heads, kv_heads, width] :
       {std::tuple{8, 8, 96}, std::tuple{4, 2, 160}, std::tuple{8, 1, 64}}) {
    matrices +=
        int64_t{kToyHidden} * (2 * heads * kToyHeadDim + 2 * kv_heads * kToyHeadDim + 3 * width);
  }
  EXPECT_EQ(LayerMatrixElements(spec), matrices);
  EXPECT_EQ(HeadMatrixElements(spec), kToyVocab * kToyHidden);
  // A rank of 4 has a fourth of each matrix, and at least one kv head.
  int64_t of_rank = 0;
  for (const auto& [heads, kv_heads, width] :
       {std::tuple{2, 2, 24}, std::tuple{1, 1, 40}, std::tuple{2, 1, 16}}) {
    of_rank +=
        int64_t{kToyHidden} * (2 * heads * kToyHeadDim + 2 * kv_heads * kToyHeadDim + 3 * width);
  }
  EXPECT_EQ(LayerMatrixElements(RankOf(spec)), matrices);
  EXPECT_EQ(LayerMatrixElements(RankOf(spec, {.tp = 4})), of_rank);
  // Two planes of 8, 2 and 1 heads, and one of 2 heads of 4 elements.
  EXPECT_EQ(KvBytes(RankOf(spec), 2, 1), 2 * (2 * 11 * kToyHeadDim + 2 * 4));
  EXPECT_EQ(KvBytes(RankOf(spec), 4, 64), 64 * 4 * (2 * 11 * kToyHeadDim + 2 * 4));
  // Heads that several ranks share are counted on each: 2, 1 and 1.
  EXPECT_EQ(KvBytes(RankOf(spec, {.tp = 4}), 2, 1), 2 * (2 * 4 * kToyHeadDim + 4));
}

TEST(ToySpec, BothPlansFollow) {
  const ModelSpec spec = Toy();
  for (const int32_t tp : {1, 2, 4}) {
    const RankModel model = RankOf(spec, {.tp = tp});
    const LayerWidths widest = WidestOf(model);
    const auto cpu = PlanMemory(spec, {.tp = tp,
                                       .stored_type = StoredType::kF32,
                                       .block_tokens = 16,
                                       .step_tokens = 8,
                                       .logits_rows = 2,
                                       .context_tokens = 100,
                                       .kv_cache_bytes = int64_t{1} << 30});
    ASSERT_TRUE(cpu.ok()) << ToString(cpu.status());
    int64_t elements = 0;
    for (const RankParameter* one : model.Parameters()) elements += one->slice.elements();
    EXPECT_EQ(cpu->weights_bytes, 4 * elements);
    EXPECT_EQ(cpu->kv_bytes_per_block, KvBytes(model, 4, 16));
    const int64_t per_row = tp == 1 ? kToyVocab : kToyVocab + (tp + 1) * RowsOfRank(kToyVocab, tp);
    EXPECT_EQ(cpu->activation_bytes,
              4 * (8 * (2 * kToyHidden + widest.qkv_rows + widest.q_rows + 2 * widest.mlp) +
                   2 * per_row + 100 * kToyHeadDim));

    CudaMemoryRequest request;
    request.capacity_bytes = int64_t{8} << 30;
    request.tp = tp;
    const auto gpu = PlanCudaMemory(spec, request);
    ASSERT_TRUE(gpu.ok()) << ToString(gpu.status());
    EXPECT_EQ(gpu->kv_bytes_per_block, KvBytes(model, 2, 64));
    EXPECT_EQ(gpu->Bytes("weights"), LayOutDeviceWeights(model, kernels::DType::kBf16).bytes);
    const int64_t rows = (gpu->limits.step_tokens + 63) / 64 * 64;
    for (const CudaBuffer& buffer : gpu->buffers) {
      const int64_t width = buffer.name == "qkv"   ? widest.qkv_rows
                            : buffer.name == "ffn" ? widest.mlp
                                                   : 0;
      if (width > 0) {
        EXPECT_EQ(buffer.bytes, rows * width * 2) << buffer.name;
      }
    }
  }
}

TEST(ToySpec, RegionsOfEachLayer) {
  const RankModel model = RankOf(Toy(), {.tp = 2, .tp_rank = 1});
  const DeviceWeightLayout layout = LayOutDeviceWeights(model, kernels::DType::kF16);
  for (const RankLayer& layer : model.layers) {
    const WeightRegion* qkv = layout.Find(Operand::kQkv, layer.index);
    ASSERT_NE(qkv, nullptr);
    EXPECT_EQ(qkv->rows, layer.attention.qkv_rows());
    EXPECT_EQ(layout.Find(Operand::kGateUp, layer.index)->rows, 2 * layer.mlp.width);
    EXPECT_EQ(layout.Find(Operand::kDown, layer.index)->cols, layer.mlp.width);
    EXPECT_EQ(layout.Find(Operand::kQkvBias, layer.index), nullptr);
  }
  std::vector<std::string_view> names;
  for (const StackedOperand& operand : OperandsOf(model.layers[0].parameters)) {
    names.push_back(NameOf(operand.operand));
  }
  EXPECT_THAT(names, ElementsAre("attention_norm", "qkv", "o", "ffn_norm", "gate_up", "down"));
}

TEST(ToySpec, ItsCheckpointIsChecked) {
  const ModelSpec spec = Toy();
  std::vector<ShardHeader> shards = {{"toy.safetensors", {}}};
  for (const Parameter& tensor : ExpectedTensors(spec)) {
    SafetensorsTensor stored;
    stored.name = tensor.name;
    stored.dtype = "F16";
    stored.shape = tensor.shape;
    shards[0].tensors.push_back(stored);
  }
  const auto checked = CheckTensors(spec, std::nullopt, shards, nullptr);
  ASSERT_TRUE(checked.ok()) << ToString(checked.status());
  EXPECT_EQ(checked->type, StoredType::kF16);
  const auto tensor = [&](std::string_view name) -> SafetensorsTensor& {
    return *std::find_if(shards[0].tensors.begin(), shards[0].tensors.end(),
                         [&](const SafetensorsTensor& one) { return one.name == name; });
  };
  // The numbers in the message are those of the tensor's own layer.
  tensor("toy.1.down").shape = {kToyHidden, 96};
  EXPECT_THAT(std::string(Message(CheckTensors(spec, std::nullopt, shards, nullptr).status())),
              AllOf(HasSubstr("intermediate_size 160"), HasSubstr("set intermediate_size=96")));
  tensor("toy.1.down").shape = {kToyHidden, 160};
  tensor("toy.2.k").shape = {4 * kToyHeadDim, kToyHidden};
  EXPECT_THAT(std::string(Message(CheckTensors(spec, std::nullopt, shards, nullptr).status())),
              AllOf(HasSubstr("num_key_value_heads 1"), HasSubstr("set num_key_value_heads=4")));
}

// A device lists what it can compute, and another kind of model is refused by name.
TEST(DeviceKinds, RefusalNamesLayerKindAndWayOut) {
  const ModelSpec spec = Toy();
  EXPECT_TRUE(CheckDeviceRuns(spec, CpuKinds()).ok());
  EXPECT_TRUE(CheckDeviceRuns(spec, GpuKinds()).ok());
  const DeviceKinds no_attention{"a toaster", {}, CpuKinds().mlp, "--device oven"};
  EXPECT_EQ(std::string(Message(CheckDeviceRuns(spec, no_attention))),
            "Toy: layer 0 has grouped attention, which a toaster does not compute in this version; "
            "use --device oven");
  const DeviceKinds no_mlp{"a toaster", CpuKinds().attention, {}, "--device oven"};
  EXPECT_THAT(std::string(Message(CheckDeviceRuns(spec, no_mlp))),
              HasSubstr("layer 0 has a dense MLP, which a toaster"));
}

}  // namespace
}  // namespace fathom
