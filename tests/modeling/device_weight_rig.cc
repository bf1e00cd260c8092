#include "tests/modeling/device_weight_rig.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "common/status.h"
#include "kernels/cuda/linear/paired_rows.h"
#include "modeling/architectures/architecture.h"
#include "modeling/spec/rank_model.h"

namespace fathom::testing {
namespace {

using kernels::DType;
using kernels::cuda::PairedRow;

StoredType StoredTypeOf(DType dtype) {
  return dtype == DType::kBf16  ? StoredType::kBf16
         : dtype == DType::kF16 ? StoredType::kF16
                                : StoredType::kF32;
}

std::vector<uint32_t> BitsOf(StoredType type, std::string_view bytes) {
  const auto element = static_cast<size_t>(BytesOf(type));
  std::vector<uint32_t> bits(bytes.size() / element, 0);
  for (size_t i = 0; i < bits.size(); ++i) {
    std::memcpy(&bits[i], bytes.data() + i * element, element);
  }
  return bits;
}

// The model's stored tensors, sliced for the rank.
class Stored {
 public:
  Stored(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype, int32_t tp,
         int32_t rank)
      : config_(config), checkpoint_(checkpoint), dtype_(dtype), tp_(tp), rank_(rank) {}

  // A tensor's rows in the wanted type.
  std::vector<std::vector<uint32_t>> Rows(const std::string& name) const {
    const std::vector<Parameter> specs = ExpectedTensors(SpecOf(config_));
    const auto spec = std::find_if(specs.begin(), specs.end(),
                                   [&](const Parameter& s) { return s.name == name; });
    EXPECT_NE(spec, specs.end()) << name;
    const TensorSlice slice = SliceOf(*spec, tp_, rank_);
    const auto loaded = checkpoint_.Load(name, slice);
    EXPECT_TRUE(loaded.ok()) << ToString(loaded.status());
    const std::string_view bytes(reinterpret_cast<const char*>(loaded->data()),
                                 static_cast<size_t>(loaded->bytes()));
    const std::vector<uint32_t> bits =
        BitsOf(StoredTypeOf(dtype_),
               FromFloats(StoredTypeOf(dtype_), ToFloats(StoredTypeName(loaded->type()), bytes)));
    std::vector<std::vector<uint32_t>> rows;
    for (auto at = bits.begin(); at != bits.end(); at += slice.cols()) {
      rows.emplace_back(at, at + slice.cols());
    }
    return rows;
  }

 private:
  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  const DType dtype_;
  const int32_t tp_;
  const int32_t rank_;
};

std::string StoredName(std::string_view region) {
  if (region == "embedding") return "model.embed_tokens.weight";
  if (region == "final_norm") return "model.norm.weight";
  if (region == "head") return "lm_head.weight";
  const size_t dot = region.rfind('.');
  const std::string layer = "model." + std::string(region.substr(0, dot + 1));
  const std::string_view kind = region.substr(dot + 1);
  if (kind == "attention_norm") return layer + "input_layernorm.weight";
  if (kind == "ffn_norm") return layer + "post_attention_layernorm.weight";
  if (kind == "q_norm" || kind == "k_norm") {
    return layer + "self_attn." + std::string(kind) + ".weight";
  }
  if (kind == "o") return layer + "self_attn.o_proj.weight";
  if (kind == "down") return layer + "mlp.down_proj.weight";
  if (kind == "qkv") return layer + "self_attn._proj.weight";  // With q, k or v before _proj.
  if (kind == "qkv_bias") return layer + "self_attn._proj.bias";
  EXPECT_EQ(kind, "gate_up");
  return layer + "mlp._proj.weight";
}

}  // namespace

const std::vector<WeightVariant>& WeightVariants() {
  static const std::vector<WeightVariant> variants = {
      {.name = "multi_head"},
      {.name = "grouped", .kv_heads = 2},
      {.name = "one_kv_head_tied",
       .hidden = 96,
       .heads = 3,
       .kv_heads = 1,
       .head_dim = 48,
       .ffn = 200,
       .tied = true},
      {.name = "biases",
       .architecture = "Qwen2ForCausalLM",
       .model_type = "qwen2",
       .kv_heads = 2,
       .head_dim = 32,
       .vocab = 61},
      {.name = "norms_tied",
       .architecture = "Qwen3ForCausalLM",
       .model_type = "qwen3",
       .hidden = 224,
       .kv_heads = 2,
       .head_dim = 64,
       .ffn = 704,
       .vocab = 93,
       .tied = true},
  };
  return variants;
}

ModelFiles MakeModel(const WeightVariant& variant, StoredType type, uint64_t seed) {
  ModelFiles model = SmallModel(1);
  const auto set = [&](std::string_view key, const std::string& value) {
    model.config = WithKey(model.config, key, value);
  };
  set("architectures", fmt::format("[\"{}\"]", variant.architecture));
  set("model_type", fmt::format("\"{}\"", variant.model_type));
  set("hidden_size", fmt::format("{}", variant.hidden));
  set("num_attention_heads", fmt::format("{}", variant.heads));
  set("num_key_value_heads", fmt::format("{}", variant.kv_heads));
  set("head_dim", fmt::format("{}", variant.head_dim));
  set("intermediate_size", fmt::format("{}", variant.ffn));
  set("vocab_size", fmt::format("{}", variant.vocab));
  set("tie_word_embeddings", variant.tied ? "true" : "false");
  const auto config = ParseModelConfig(model.config);
  EXPECT_TRUE(config.ok()) << ToString(config.status());
  model.tensors.clear();
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  for (const Parameter& spec : ExpectedTensors(SpecOf(*config))) {
    const TensorSlice whole = WholeOf(spec);
    std::vector<float> values(static_cast<size_t>(whole.rows() * whole.cols()));
    for (float& value : values) value = normal(rng);
    model.tensors.push_back({spec.name, "F32", spec.shape, FromFloats(StoredType::kF32, values)});
  }
  Retype(model, type);
  return model;
}

void MixVectorTypes(ModelFiles& model) {
  constexpr StoredType kTypes[] = {StoredType::kF32, StoredType::kF16, StoredType::kBf16};
  size_t next = 0;
  for (StoredTensor& tensor : model.tensors) {
    if (tensor.shape.size() > 1) continue;
    const StoredType type = kTypes[next++ % std::size(kTypes)];
    tensor.bytes = FromFloats(type, ToFloats(tensor.dtype, tensor.bytes));
    tensor.dtype = StoredTypeName(type);
  }
}

std::vector<uint32_t> WantedBits(const ModelConfig& config, const Checkpoint& checkpoint,
                                 std::string_view region, DType dtype, int32_t tp, int32_t rank) {
  const Stored stored(config, checkpoint, dtype, tp, rank);
  const std::string name = StoredName(region);
  std::vector<std::vector<uint32_t>> rows;
  const size_t gap = name.find("_proj");
  const auto load = [&](std::string_view kind) {
    std::string full = name;
    return stored.Rows(full.insert(gap, kind));
  };
  if (name.find("mlp._proj") != std::string::npos) {
    const auto gate = load("gate"), up = load("up");
    const auto ffn = static_cast<int64_t>(gate.size());
    rows.resize(2 * gate.size());
    for (int64_t j = 0; j < ffn; ++j) {
      rows[static_cast<size_t>(PairedRow(j, ffn))] = gate[static_cast<size_t>(j)];
      rows[static_cast<size_t>(PairedRow(ffn + j, ffn))] = up[static_cast<size_t>(j)];
    }
  } else if (name.find("self_attn._proj") != std::string::npos) {
    const int64_t head_dim = config.head_dim;
    for (const std::string_view kind : {"q", "k", "v"}) {
      const auto part = load(kind);
      const size_t begin = rows.size();
      rows.resize(begin + part.size());
      for (int64_t i = 0; i < static_cast<int64_t>(part.size()); ++i) {
        const int64_t in_head = i % head_dim;
        const int64_t to = kind == "v" ? in_head : PairedRow(in_head, head_dim / 2);
        rows[begin + static_cast<size_t>(i - in_head + to)] = part[static_cast<size_t>(i)];
      }
    }
  } else {
    rows = stored.Rows(name);
  }
  std::vector<uint32_t> bits;
  for (const auto& row : rows) bits.insert(bits.end(), row.begin(), row.end());
  return bits;
}

std::vector<uint32_t> BitsIn(const WeightRegion& region, const std::vector<std::byte>& arena) {
  return BitsOf(StoredTypeOf(region.dtype),
                {reinterpret_cast<const char*>(arena.data()) + region.offset,
                 static_cast<size_t>(region.bytes())});
}

}  // namespace fathom::testing
