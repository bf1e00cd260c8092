#include "worker/cpu/model_weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <string>

#include "common/check.h"
#include "kernels/gemm.h"
#include "modeling/architectures/architecture.h"
#include "worker/cpu/decoder.h"

namespace fathom::worker {
namespace {

using kernels::DType;
using kernels::TensorView;

constexpr size_t kAlignment = 64;

DType DTypeOf(StoredType type) {
  switch (type) {
    case StoredType::kBf16:
      return DType::kBf16;
    case StoredType::kF16:
      return DType::kF16;
    case StoredType::kF32:
      return DType::kF32;
  }
  return DType::kF32;
}

TensorView ViewOf(const HostTensor& tensor) {
  return {.data = tensor.data(),
          .rows = tensor.rows(),
          .cols = tensor.cols(),
          .dtype = DTypeOf(tensor.type())};
}

size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

RankShape ShapeOfRank(const ModelConfig& config, int32_t tp) {
  return {.heads = config.heads / tp,
          .kv_heads = std::max(1, config.kv_heads / tp),
          .ffn = config.ffn / tp,
          .vocab = static_cast<int32_t>(RowsOfRank(config.vocab, tp))};
}

// Fills a ModelWeights in the order of the forward pass.
class WeightLoader {
 public:
  WeightLoader(const ModelConfig& config, const Checkpoint& checkpoint, const ParallelPlace& place)
      : config_(config),
        checkpoint_(checkpoint),
        place_(place),
        shape_(ShapeOfRank(config, place.size)),
        dtype_(DTypeOf(checkpoint.stored_type())),
        specs_(ExpectedTensors(config)) {}

  absl::StatusOr<std::unique_ptr<ModelWeights>> Load() {
    auto weights = std::unique_ptr<ModelWeights>(new ModelWeights());
    FATHOM_RETURN_IF_ERROR(AllocateArena(*weights));
    FATHOM_ASSIGN_OR_RETURN(weights->embedding_, Slice("model.embed_tokens.weight"));
    weights->embedding = ViewOf(weights->embedding_);
    weights->layers.resize(static_cast<size_t>(config_.layers));
    for (int32_t i = 0; i < config_.layers; ++i) {
      FATHOM_RETURN_IF_ERROR(LoadLayer(i, weights->layers[static_cast<size_t>(i)]));
    }
    FATHOM_ASSIGN_OR_RETURN(weights->final_norm, Vector({"model.norm.weight"}));
    FATHOM_RETURN_IF_ERROR(LoadHead(*weights));
    FATHOM_CHECK(used_ <= size_, "used {} of {} bytes", used_, size_);
    weights->bytes_ = size_ + static_cast<size_t>(weights->embedding_.bytes());
    return weights;
  }

 private:
  absl::Status LoadLayer(int32_t index, LayerWeights& layer) {
    const std::string p = fmt::format("model.layers.{}.", index);
    const std::string attention = p + "self_attn.";
    const std::string mlp = p + "mlp.";
    FATHOM_ASSIGN_OR_RETURN(layer.attention_norm, Vector({p + "input_layernorm.weight"}));
    FATHOM_ASSIGN_OR_RETURN(layer.qkv,
                            Matrix({attention + "q_proj.weight", attention + "k_proj.weight",
                                    attention + "v_proj.weight"}));
    if (config_.qkv_bias) {
      FATHOM_ASSIGN_OR_RETURN(layer.qkv_bias,
                              Vector({attention + "q_proj.bias", attention + "k_proj.bias",
                                      attention + "v_proj.bias"}));
    }
    if (config_.qk_norm) {
      FATHOM_ASSIGN_OR_RETURN(layer.q_norm, Vector({attention + "q_norm.weight"}));
      FATHOM_ASSIGN_OR_RETURN(layer.k_norm, Vector({attention + "k_norm.weight"}));
    }
    FATHOM_ASSIGN_OR_RETURN(layer.o, Matrix({attention + "o_proj.weight"}));
    FATHOM_ASSIGN_OR_RETURN(layer.ffn_norm, Vector({p + "post_attention_layernorm.weight"}));
    FATHOM_ASSIGN_OR_RETURN(layer.gate_up,
                            Matrix({mlp + "gate_proj.weight", mlp + "up_proj.weight"}));
    FATHOM_ASSIGN_OR_RETURN(layer.down, Matrix({mlp + "down_proj.weight"}));
    return absl::OkStatus();
  }

  // The rank's part of the vocabulary; with tied embeddings those rows of the embedding.
  absl::Status LoadHead(ModelWeights& weights) {
    if (!config_.tied_embeddings) {
      FATHOM_ASSIGN_OR_RETURN(weights.head, Matrix({"lm_head.weight"}));
      return absl::OkStatus();
    }
    TensorView rows = weights.embedding;
    const int64_t begin = int64_t{place_.rank} * shape_.vocab;
    rows.rows = std::min<int64_t>(shape_.vocab, config_.vocab - begin);
    rows.data = weights.embedding_.data() +
                begin * rows.cols * static_cast<int64_t>(kernels::SizeOf(dtype_));
    weights.head = Pack(rows);
    return absl::OkStatus();
  }

  absl::Status AllocateArena(ModelWeights& weights) {
    const int64_t hidden = config_.hidden;
    const int64_t q_rows = int64_t{shape_.heads} * config_.head_dim;
    const int64_t kv_rows = int64_t{shape_.kv_heads} * config_.head_dim;
    const auto matrix = [this](int64_t rows, int64_t cols) {
      return Aligned(kernels::PackedBytes(rows, cols, dtype_));
    };
    const auto vector = [](int64_t count) {
      return Aligned(static_cast<size_t>(count) * sizeof(float));
    };
    const size_t layer = matrix(q_rows + 2 * kv_rows, hidden) + matrix(hidden, q_rows) +
                         matrix(2 * int64_t{shape_.ffn}, hidden) + matrix(hidden, shape_.ffn) +
                         2 * vector(hidden) + vector(q_rows + 2 * kv_rows) +
                         2 * vector(config_.head_dim);
    size_ =
        layer * static_cast<size_t>(config_.layers) + vector(hidden) + matrix(shape_.vocab, hidden);
    void* memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      return Exhausted("this rank's weights take {} bytes, which this machine refused", size_);
    }
    madvise(memory, size_, MADV_HUGEPAGE);  // Fewer TLB misses where the kernel has them.
    weights.arena_ = arena_ = static_cast<std::byte*>(memory);
    weights.bytes_ = size_;
    return absl::OkStatus();
  }

  std::byte* Take(size_t bytes) {
    std::byte* taken = arena_ + used_;
    used_ += Aligned(bytes);
    FATHOM_CHECK(used_ <= size_, "the arena of {} bytes is too small", size_);
    return taken;
  }

  absl::StatusOr<HostTensor> Slice(const std::string& name) const {
    const auto spec = std::find_if(specs_.begin(), specs_.end(),
                                   [&name](const TensorSpec& s) { return s.name == name; });
    FATHOM_CHECK(spec != specs_.end(), "no tensor {}", name);
    return checkpoint_.Load(name, SliceOf(*spec, config_, place_.size, place_.rank));
  }

  TensorView Pack(const TensorView& rows) {
    return kernels::PackWeight(rows, Take(kernels::PackedBytes(rows.rows, rows.cols, rows.dtype)));
  }

  // The slices of `names`, matrices, one below the other.
  absl::StatusOr<HostTensor> Stack(std::span<const std::string> names) const {
    std::vector<HostTensor> parts;
    int64_t rows = 0;
    for (const std::string& name : names) {
      FATHOM_ASSIGN_OR_RETURN(HostTensor part, Slice(name));
      rows += part.rows();
      parts.push_back(std::move(part));
    }
    if (parts.size() == 1) return std::move(parts.front());
    HostTensor all(parts.front().type(), rows, parts.front().cols());
    std::byte* to = all.data();
    for (const HostTensor& part : parts) {
      std::memcpy(to, part.data(), static_cast<size_t>(part.bytes()));
      to += part.bytes();
    }
    return all;
  }

  absl::StatusOr<TensorView> Matrix(std::initializer_list<std::string> names) {
    FATHOM_ASSIGN_OR_RETURN(const HostTensor rows, Stack({names.begin(), names.size()}));
    return Pack(ViewOf(rows));
  }

  // The slices of `names`, vectors of whatever types, widened one after the other.
  absl::StatusOr<const float*> Vector(std::initializer_list<std::string> names) {
    std::vector<float> widened;
    for (const std::string& name : names) {
      FATHOM_ASSIGN_OR_RETURN(const HostTensor values, Slice(name));
      const TensorView view = ViewOf(values);
      for (int64_t i = 0; i < values.rows(); ++i) {
        widened.push_back(kernels::WeightAt(view, i, 0));
      }
    }
    std::byte* const to = Take(widened.size() * sizeof(float));
    std::memcpy(to, widened.data(), widened.size() * sizeof(float));
    return reinterpret_cast<const float*>(to);
  }

  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  const ParallelPlace place_;
  const RankShape shape_;
  const DType dtype_;
  const std::vector<TensorSpec> specs_;
  std::byte* arena_ = nullptr;
  size_t size_ = 0;
  size_t used_ = 0;
};

absl::StatusOr<std::unique_ptr<ModelWeights>> ModelWeights::Load(const ModelConfig& config,
                                                                 const Checkpoint& checkpoint,
                                                                 const ParallelPlace& place) {
  return WeightLoader(config, checkpoint, place).Load();
}

ModelWeights::~ModelWeights() {
  if (arena_ != nullptr) munmap(arena_, bytes_ - static_cast<size_t>(embedding_.bytes()));
}

}  // namespace fathom::worker
