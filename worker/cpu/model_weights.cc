#include "worker/cpu/model_weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "kernels/gemm.h"
#include "modeling/spec/operands.h"

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

// Fills a ModelWeights in the order of the forward pass.
class WeightLoader {
 public:
  WeightLoader(const RankModel& model, const Checkpoint& checkpoint)
      : model_(model), checkpoint_(checkpoint), dtype_(DTypeOf(checkpoint.stored_type())) {}

  absl::StatusOr<std::unique_ptr<ModelWeights>> Load() {
    auto weights = std::unique_ptr<ModelWeights>(new ModelWeights());
    FATHOM_RETURN_IF_ERROR(AllocateArena(*weights));
    if (model_.is_first_stage()) {
      FATHOM_ASSIGN_OR_RETURN(weights->embedding_, Slice(*model_.embedding));
      weights->embedding = ViewOf(weights->embedding_);
    }
    for (const RankLayer& layer : model_.layers) {
      LayerWeights& loaded = weights->layers.emplace_back();
      for (const StackedOperand& stack : OperandsOf(layer.parameters)) {
        FATHOM_RETURN_IF_ERROR(LoadOperand(stack, loaded));
      }
    }
    if (model_.is_last_stage()) {
      FATHOM_ASSIGN_OR_RETURN(weights->final_norm,
                              Vector({Operand::kFinalNorm, {&*model_.final_norm}}));
      FATHOM_RETURN_IF_ERROR(LoadHead(*weights));
    }
    FATHOM_CHECK(used_ == size_, "used {} of {} bytes", used_, size_);
    weights->bytes_ = size_ + static_cast<size_t>(weights->embedding_.bytes());
    return weights;
  }

 private:
  absl::Status LoadOperand(const StackedOperand& stack, LayerWeights& layer) {
    if (stack.precision() == Precision::kVector) {
      FATHOM_ASSIGN_OR_RETURN(*VectorOf(stack.operand, layer), Vector(stack));
    } else {
      FATHOM_ASSIGN_OR_RETURN(*MatrixOf(stack.operand, layer), Matrix(stack));
    }
    return absl::OkStatus();
  }

  // The member of a layer that an operand is stored in.
  static const float** VectorOf(Operand operand, LayerWeights& layer) {
    switch (operand) {
      case Operand::kAttentionNorm:
        return &layer.attention_norm;
      case Operand::kQkvBias:
        return &layer.qkv_bias;
      case Operand::kQNorm:
        return &layer.q_norm;
      case Operand::kKNorm:
        return &layer.k_norm;
      case Operand::kFfnNorm:
        return &layer.ffn_norm;
      default:
        FATHOM_CHECK(false, "{} is no vector of a layer", NameOf(operand));
        return nullptr;
    }
  }
  static TensorView* MatrixOf(Operand operand, LayerWeights& layer) {
    switch (operand) {
      case Operand::kQkv:
        return &layer.qkv;
      case Operand::kO:
        return &layer.o;
      case Operand::kGateUp:
        return &layer.gate_up;
      case Operand::kDown:
        return &layer.down;
      default:
        FATHOM_CHECK(false, "{} is no matrix of a layer", NameOf(operand));
        return nullptr;
    }
  }

  // Stores the rank's part of the vocabulary. With tied embeddings these are rows of the embedding.
  absl::Status LoadHead(ModelWeights& weights) {
    if (model_.lm_head) {
      FATHOM_ASSIGN_OR_RETURN(weights.head, Matrix({Operand::kHead, {&*model_.lm_head}}));
      return absl::OkStatus();
    }
    const TensorSlice slice = model_.HeadRowsOfTied();
    if (!model_.is_first_stage()) {
      FATHOM_ASSIGN_OR_RETURN(const HostTensor rows,
                              checkpoint_.Load(model_.embedding->parameter.name, slice));
      weights.head = Pack(ViewOf(rows));
      return absl::OkStatus();
    }
    TensorView rows = weights.embedding;
    rows.rows = slice.rows();
    rows.data = weights.embedding_.data() +
                slice.row_begin * rows.cols * static_cast<int64_t>(kernels::SizeOf(dtype_));
    weights.head = Pack(rows);
    return absl::OkStatus();
  }

  size_t BytesOfOperand(const StackedOperand& stack) const {
    if (stack.precision() == Precision::kVector) {
      return Aligned(static_cast<size_t>(stack.rows()) * sizeof(float));
    }
    return Aligned(kernels::PackedBytes(stack.rows(), stack.cols(), dtype_));
  }

  // The bytes that all calls of Take() will need.
  size_t ArenaBytes() const {
    size_t bytes = 0;
    for (const RankLayer& layer : model_.layers) {
      for (const StackedOperand& stack : OperandsOf(layer.parameters)) {
        bytes += BytesOfOperand(stack);
      }
    }
    if (!model_.is_last_stage()) return bytes;
    bytes += BytesOfOperand({Operand::kFinalNorm, {&*model_.final_norm}});
    if (model_.lm_head) return bytes + BytesOfOperand({Operand::kHead, {&*model_.lm_head}});
    return bytes +
           Aligned(kernels::PackedBytes(model_.HeadRowsOfTied().rows(), model_.hidden, dtype_));
  }

  absl::Status AllocateArena(ModelWeights& weights) {
    size_ = ArenaBytes();
    void* memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      return Exhausted("this rank's weights take {} bytes, which this machine refused", size_);
    }
    // Huge pages, if the kernel has them, reduce TLB misses.
    madvise(memory, size_, MADV_HUGEPAGE);
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

  absl::StatusOr<HostTensor> Slice(const RankParameter& one) const {
    return checkpoint_.Load(one.parameter.name, one.slice);
  }

  TensorView Pack(const TensorView& rows) {
    return kernels::PackWeight(rows, Take(kernels::PackedBytes(rows.rows, rows.cols, rows.dtype)));
  }

  // Stores the slices of the parameters of an operand, which are matrices, one below the other.
  absl::StatusOr<HostTensor> Stack(const StackedOperand& stack) const {
    std::vector<HostTensor> parts;
    for (const RankParameter* one : stack.parts) {
      FATHOM_ASSIGN_OR_RETURN(HostTensor part, Slice(*one));
      parts.push_back(std::move(part));
    }
    if (parts.size() == 1) return std::move(parts.front());
    HostTensor all(parts.front().type(), stack.rows(), stack.cols());
    std::byte* to = all.data();
    for (const HostTensor& part : parts) {
      std::memcpy(to, part.data(), static_cast<size_t>(part.bytes()));
      to += part.bytes();
    }
    return all;
  }

  absl::StatusOr<TensorView> Matrix(const StackedOperand& stack) {
    FATHOM_ASSIGN_OR_RETURN(const HostTensor rows, Stack(stack));
    return Pack(ViewOf(rows));
  }

  // Stores the slices of the parameters of an operand, which are vectors of any type, as fp32, one
  // after the other.
  absl::StatusOr<const float*> Vector(const StackedOperand& stack) {
    std::vector<float> widened;
    for (const RankParameter* one : stack.parts) {
      FATHOM_ASSIGN_OR_RETURN(const HostTensor values, Slice(*one));
      const TensorView view = ViewOf(values);
      for (int64_t i = 0; i < values.rows(); ++i) {
        widened.push_back(kernels::WeightAt(view, i, 0));
      }
    }
    std::byte* const to = Take(widened.size() * sizeof(float));
    std::memcpy(to, widened.data(), widened.size() * sizeof(float));
    return reinterpret_cast<const float*>(to);
  }

  const RankModel& model_;
  const Checkpoint& checkpoint_;
  const DType dtype_;
  std::byte* arena_ = nullptr;
  size_t size_ = 0;
  size_t used_ = 0;
};

absl::StatusOr<std::unique_ptr<ModelWeights>> ModelWeights::Load(const RankModel& model,
                                                                 const Checkpoint& checkpoint) {
  return WeightLoader(model, checkpoint).Load();
}

ModelWeights::~ModelWeights() {
  if (arena_ != nullptr) munmap(arena_, bytes_ - static_cast<size_t>(embedding_.bytes()));
}

}  // namespace fathom::worker
