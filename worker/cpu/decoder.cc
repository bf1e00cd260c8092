#include "worker/cpu/decoder.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "common/check.h"
#include "kernels/add.h"
#include "kernels/embedding.h"
#include "kernels/gather_rows.h"
#include "kernels/gemm.h"
#include "kernels/paged_attention.h"
#include "kernels/relu2.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope_kv_write.h"
#include "kernels/silu_mul.h"
#include "modeling/spec/rope_spec.h"
#include "worker/cpu/model_weights.h"

namespace fathom::worker {
namespace {

using kernels::KvPlanes;
using kernels::SequenceRow;
using kernels::TensorView;

static_assert(sizeof(BlockId) == sizeof(int32_t), "kernels read block tables as plain numbers");

// The stride of a row: each row begins at a cache line, so that no vector load crosses one.
constexpr int64_t Padded(int64_t width) { return (width + 15) / 16 * 16; }

// Rows of fp32 activations, allocated once and zeroed.
struct Activations {
  Activations(int64_t rows, int64_t row_stride)
      : stride(row_stride),
        size(static_cast<size_t>(rows * row_stride)),
        data(new (std::align_val_t{64}) float[size]()) {}
  float* row(int64_t r) { return data.get() + r * stride; }
  std::span<float> rows(int64_t count) { return {data.get(), static_cast<size_t>(count * stride)}; }
  size_t bytes() const { return size * sizeof(float); }

  struct Delete {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  int64_t stride;
  size_t size;
  std::unique_ptr<float[], Delete> data;
};

class LlamaDecoder final : public Decoder {
 public:
  LlamaDecoder(const RankModel& model, const DecoderLimits& limits,
               std::unique_ptr<ModelWeights> weights, KvCache* kv, Comm* comm,
               kernels::ThreadPool* pool, Progress* progress)
      : model_(model),
        widest_(WidestOf(model)),
        limits_(limits),
        weights_(std::move(weights)),
        positions_(std::min<int64_t>(limits.context_tokens, kv->shape().pool_tokens())),
        rope_(kernels::MakeRopeTable(RopeSpecOf(model.rope, model.rope_dim), positions_)),
        kv_(*kv),
        comm_(*comm),
        pool_(*pool),
        progress_(progress),
        x_(limits.step_tokens, Padded(model.hidden)),
        normed_(limits.step_tokens, Padded(model.hidden)),
        qkv_(limits.step_tokens, Padded(widest_.qkv_rows)),
        attended_(limits.step_tokens, Padded(widest_.q_rows)),
        gate_up_(limits.step_tokens, Padded(widest_.gate_up_rows)),
        logits_(model.is_last_stage() ? limits.logits_rows : 0, model.vocab),
        logits_of_rank_(GatheredRows(), model.vocab_rows),
        gathered_(GatheredRows(), int64_t{model.place.tp} * model.vocab_rows) {
    tokens_.reserve(static_cast<size_t>(limits.step_tokens));
    rows_.reserve(static_cast<size_t>(limits.step_tokens));
    with_logits_.reserve(static_cast<size_t>(limits.logits_rows));
  }

  absl::StatusOr<std::span<const float>> Forward(const ForwardBatch& batch) override;

  int32_t hidden() const override { return model_.hidden; }
  size_t weight_bytes() const override { return weights_->bytes(); }
  size_t work_bytes() const override {
    size_t bytes = (rope_.cos.size() + rope_.sin.size()) * sizeof(float);
    for (const Activations* a :
         {&x_, &normed_, &qkv_, &attended_, &gate_up_, &logits_, &logits_of_rank_, &gathered_}) {
      bytes += a->bytes();
    }
    return bytes;
  }

 private:
  absl::Status CheckRow(const ForwardBatch& batch, const ForwardRow& row) const;
  absl::Status Begin(const ForwardBatch& batch);
  void FirstHidden(const ForwardBatch& batch);
  std::span<const float> LastHidden();
  absl::Status Layer(int32_t index);
  void Enter(Activity activity, int32_t layer) const {
    if (progress_ != nullptr) progress_->Enter(activity, layer);
  }
  void WriteKv(const RankLayer& part, const LayerWeights& layer, const KvPlanes& planes);
  void KeepRowsWithLogits(int64_t q_rows);
  void Attention(const RankLayer& part, const KvPlanes& planes);
  void Activate(const MlpSpec& mlp);  // gate_up_, in place.
  absl::StatusOr<std::span<const float>> Head();

  void Norm(Activations& x, const float* weight, Activations& y, int64_t rows);
  void NormHeads(float* heads, int64_t count, int64_t head_dim, const float* weight);
  void Product(Activations& x, const TensorView& weight, const float* bias, Activations& y,
               int64_t rows);
  absl::Status AddProduct(Activations& x, const TensorView& weight);

  // The rows with logits of all ranks, if they are gathered.
  int64_t GatheredRows() const {
    return model_.is_last_stage() && model_.place.tp > 1 ? limits_.logits_rows : 0;
  }
  // The current number of rows: all rows of the batch, and after the KV write of the model's last
  // layer only those with logits.
  int64_t row_count() const { return static_cast<int64_t>(rows_.size()); }

  const RankModel model_;
  const LayerWidths widest_;
  const DecoderLimits limits_;
  const std::unique_ptr<ModelWeights> weights_;
  // The number of positions that a sequence can reach: the context, or the tokens of the KV pool if
  // that is less. The rotary tables end there, so that a context of millions costs no memory.
  const int64_t positions_;
  const kernels::RopeTable rope_;
  KvCache& kv_;
  Comm& comm_;
  kernels::ThreadPool& pool_;
  Progress* const progress_;  // May be null.

  Activations x_;               // The residual stream.
  Activations normed_;          // The output of a norm, or of a GEMM before its all-reduce.
  Activations qkv_;             // For each row: q of the rank's heads, then k, then v.
  Activations attended_;        // For each row: the rank's heads.
  Activations gate_up_;         // For each row: the input of the MLP's activation, then its result.
  Activations logits_;          // [rows][vocab]
  Activations logits_of_rank_;  // [rows][vocab of the rank]; only if tp > 1, like gathered_.
  Activations gathered_;        // [rank][rows][vocab of the rank]
  std::vector<int32_t> tokens_;
  std::vector<SequenceRow> rows_;
  std::vector<int32_t> with_logits_;  // Indices of the batch's rows with logits, ascending.
};

absl::StatusOr<std::span<const float>> LlamaDecoder::Forward(const ForwardBatch& batch) {
  FATHOM_RETURN_IF_ERROR(Begin(batch));
  FirstHidden(batch);
  for (int32_t i = 0; i < static_cast<int32_t>(model_.layers.size()); ++i) {
    FATHOM_RETURN_IF_ERROR(Layer(i));
    if (progress_ != nullptr) progress_->op.fetch_add(1, std::memory_order_relaxed);
  }
  if (!model_.is_last_stage()) return LastHidden();
  return Head();
}

void LlamaDecoder::FirstHidden(const ForwardBatch& batch) {
  if (model_.is_first_stage()) {
    kernels::EmbeddingCpu({.table = weights_->embedding,
                           .tokens = tokens_.data(),
                           .rows = row_count(),
                           .y = x_.row(0),
                           .y_stride = x_.stride},
                          pool_);
    return;
  }
  FATHOM_CHECK(std::ssize(batch.hidden) == row_count() * model_.hidden, "{} values of {} rows",
               batch.hidden.size(), row_count());
  for (int64_t r = 0; r < row_count(); ++r) {
    std::copy_n(batch.hidden.data() + r * model_.hidden, model_.hidden, x_.row(r));
  }
}

// The rows of x_ without the padding between them.
std::span<const float> LlamaDecoder::LastHidden() {
  if (x_.stride == model_.hidden) return x_.rows(row_count());
  float* const to = normed_.row(0);  // Not in use between two steps, and as large.
  for (int64_t r = 0; r < row_count(); ++r) {
    std::copy_n(x_.row(r), model_.hidden, to + r * model_.hidden);
  }
  return {to, static_cast<size_t>(row_count() * model_.hidden)};
}

absl::Status LlamaDecoder::Layer(int32_t index) {
  const RankLayer& part = model_.layers[static_cast<size_t>(index)];
  const LayerWeights& layer = weights_->layers[static_cast<size_t>(index)];
  Enter(Activity::kAttention, part.index);
  const KvPlanes planes = {.keys = kv_.Plane(index, 0),
                           .values = kv_.Plane(index, 1),
                           .kv_heads = part.attention.kv_heads,
                           .head_dim = part.attention.head_dim,
                           .block_tokens = kv_.shape().block_tokens};
  Norm(x_, layer.attention_norm, normed_, row_count());
  Product(normed_, layer.qkv, layer.qkv_bias, qkv_, row_count());
  WriteKv(part, layer, planes);
  if (model_.is_last_stage() && static_cast<size_t>(index) + 1 == model_.layers.size()) {
    KeepRowsWithLogits(part.attention.q_rows());
  }
  // All ranks return here, so that none of them waits in a collective of no rows.
  if (row_count() == 0) return absl::OkStatus();
  Attention(part, planes);
  FATHOM_RETURN_IF_ERROR(AddProduct(attended_, layer.o));

  Enter(Activity::kMlp, part.index);
  Norm(x_, layer.ffn_norm, normed_, row_count());
  Product(normed_, layer.gate_up, nullptr, gate_up_, row_count());
  Activate(part.mlp);
  return AddProduct(gate_up_, layer.down);
}

void LlamaDecoder::Activate(const MlpSpec& mlp) {
  switch (mlp.kind) {
    case MlpKind::kDense:
      kernels::SiluMulCpu({.gate = gate_up_.row(0),
                           .up = gate_up_.row(0) + mlp.width,
                           .stride = gate_up_.stride,
                           .rows = row_count(),
                           .dim = mlp.width,
                           .y = gate_up_.row(0),
                           .y_stride = gate_up_.stride},
                          pool_);
      return;
    case MlpKind::kSquaredRelu:
      kernels::Relu2Cpu({.x = gate_up_.row(0),
                         .x_stride = gate_up_.stride,
                         .rows = row_count(),
                         .dim = mlp.width,
                         .y = gate_up_.row(0),
                         .y_stride = gate_up_.stride},
                        pool_);
      return;
  }
}

void LlamaDecoder::WriteKv(const RankLayer& part, const LayerWeights& layer,
                           const KvPlanes& planes) {
  const AttentionSpec& attention = part.attention;
  float* q = qkv_.row(0);
  float* k = q + attention.q_rows();
  float* v = k + attention.kv_rows();
  if (layer.q_norm != nullptr) NormHeads(q, attention.heads, attention.head_dim, layer.q_norm);
  if (layer.k_norm != nullptr) NormHeads(k, attention.kv_heads, attention.head_dim, layer.k_norm);
  kernels::RopeKvWriteCpu({.q = q,
                           .k = k,
                           .v = v,
                           .stride = qkv_.stride,
                           .heads = attention.heads,
                           .cos = rope_.cos.data(),
                           .sin = rope_.sin.data(),
                           .rows = rows_.data(),
                           .row_count = row_count(),
                           .planes = planes},
                          pool_);
}

// After the KV write of the model's last layer only the rows with logits are needed.
void LlamaDecoder::KeepRowsWithLogits(int64_t q_rows) {
  const auto count = std::ssize(with_logits_);
  if (count == row_count()) return;
  const auto keep = [&](Activations& a, int64_t width) {
    kernels::GatherRowsCpu({.x = a.row(0),
                            .x_stride = a.stride,
                            .index = with_logits_.data(),
                            .rows = count,
                            .dim = width,
                            .y = a.row(0),
                            .y_stride = a.stride});
  };
  keep(x_, model_.hidden);
  keep(qkv_, q_rows);
  for (size_t i = 0; i < with_logits_.size(); ++i) {
    rows_[i] = rows_[static_cast<size_t>(with_logits_[i])];
  }
  rows_.resize(with_logits_.size());
}

void LlamaDecoder::Attention(const RankLayer& part, const KvPlanes& planes) {
  kernels::PagedAttentionCpu({.q = qkv_.row(0),
                              .q_stride = qkv_.stride,
                              .heads = part.attention.heads,
                              .planes = planes,
                              .rows = rows_.data(),
                              .row_count = row_count(),
                              .y = attended_.row(0),
                              .y_stride = attended_.stride},
                             pool_);
}

absl::StatusOr<std::span<const float>> LlamaDecoder::Head() {
  Enter(Activity::kHead, -1);
  const int64_t count = row_count();
  Norm(x_, weights_->final_norm, normed_, count);
  if (comm_.size() == 1) {
    Product(normed_, weights_->head, nullptr, logits_, count);
    return logits_.rows(count);
  }
  if (count == 0) return logits_.rows(0);
  Product(normed_, weights_->head, nullptr, logits_of_rank_, count);
  FATHOM_RETURN_IF_ERROR(comm_.AllGather(logits_of_rank_.rows(count), gathered_.rows(count)));
  const float* from = gathered_.row(0);
  for (int64_t rank = 0; rank < comm_.size(); ++rank) {
    const int64_t begin = rank * model_.vocab_rows;
    // The rows of the last rank beyond the end of the vocabulary have no values.
    const int64_t width = std::min<int64_t>(model_.vocab_rows, model_.vocab - begin);
    for (int64_t r = 0; r < count; ++r, from += model_.vocab_rows) {
      std::copy_n(from, width, logits_.row(r) + begin);
    }
  }
  return logits_.rows(count);
}

void LlamaDecoder::Norm(Activations& x, const float* weight, Activations& y, int64_t rows) {
  kernels::RmsNormCpu({.x = x.row(0),
                       .x_stride = x.stride,
                       .weight = weight,
                       .eps = static_cast<float>(model_.rms_eps),
                       .rows = rows,
                       .dim = model_.hidden,
                       .y = y.row(0),
                       .y_stride = y.stride},
                      pool_);
}

void LlamaDecoder::NormHeads(float* heads, int64_t count, int64_t head_dim, const float* weight) {
  kernels::RmsNormCpu({.x = heads,
                       .x_stride = qkv_.stride,
                       .weight = weight,
                       .eps = static_cast<float>(model_.rms_eps),
                       .rows = row_count(),
                       .groups = count,
                       .dim = head_dim,
                       .y = heads,
                       .y_stride = qkv_.stride},
                      pool_);
}

void LlamaDecoder::Product(Activations& x, const TensorView& weight, const float* bias,
                           Activations& y, int64_t rows) {
  kernels::GemmCpu({.x = x.row(0),
                    .x_stride = x.stride,
                    .rows = rows,
                    .weight = weight,
                    .bias = bias,
                    .y = y.row(0),
                    .y_stride = y.stride},
                   pool_);
}

// Computes x_ += x weight^T over all ranks. Each rank has a slice of the reduction; the residual is
// added after the sum over the ranks.
absl::Status LlamaDecoder::AddProduct(Activations& x, const TensorView& weight) {
  if (comm_.size() == 1) {
    kernels::GemmCpu({.x = x.row(0),
                      .x_stride = x.stride,
                      .rows = row_count(),
                      .weight = weight,
                      .residual = x_.row(0),
                      .residual_stride = x_.stride,
                      .y = x_.row(0),
                      .y_stride = x_.stride},
                     pool_);
    return absl::OkStatus();
  }
  Product(x, weight, nullptr, normed_, row_count());
  FATHOM_RETURN_IF_ERROR(comm_.AllReduceSum(normed_.rows(row_count())));
  kernels::AddCpu({.x = normed_.row(0), .y = x_.row(0), .count = row_count() * x_.stride}, pool_);
  return absl::OkStatus();
}

absl::Status LlamaDecoder::CheckRow(const ForwardBatch& batch, const ForwardRow& row) const {
  if (model_.is_first_stage() && (row.token < 0 || row.token >= model_.vocab)) {
    return OutOfRange("token {} is not in the model's vocabulary of {}", row.token, model_.vocab);
  }
  if (row.position < 0 || row.position >= positions_) {
    return OutOfRange(
        "position {} is not below {}: the context has {} tokens, and the KV pool holds {}",
        row.position, positions_, limits_.context_tokens, kv_.shape().pool_tokens());
  }
  if (row.sequence < 0 || static_cast<size_t>(row.sequence) >= batch.block_tables.size()) {
    return OutOfRange("a row of sequence {}, but the batch has {} block tables", row.sequence,
                      batch.block_tables.size());
  }
  const auto table = batch.block_tables[static_cast<size_t>(row.sequence)];
  if (static_cast<size_t>(row.position / kv_.shape().block_tokens) >= table.size()) {
    return OutOfRange("position {} is beyond its sequence's {} blocks of {} tokens", row.position,
                      table.size(), kv_.shape().block_tokens);
  }
  return absl::OkStatus();
}

absl::Status LlamaDecoder::Begin(const ForwardBatch& batch) {
  FATHOM_CHECK(batch.rows.size() <= static_cast<size_t>(limits_.step_tokens), "{} rows of {}",
               batch.rows.size(), limits_.step_tokens);
  for (const auto& table : batch.block_tables) {
    for (const BlockId block : table) {
      if (kv_.Contains(block)) continue;
      return OutOfRange("block {} is not in this rank's pool of blocks 1 to {}", block.value,
                        kv_.shape().pool_blocks - 1);
    }
  }
  tokens_.clear();
  rows_.clear();
  with_logits_.clear();
  for (const ForwardRow& row : batch.rows) {
    FATHOM_RETURN_IF_ERROR(CheckRow(batch, row));
    const auto table = batch.block_tables[static_cast<size_t>(row.sequence)];
    if (row.logits) with_logits_.push_back(static_cast<int32_t>(rows_.size()));
    tokens_.push_back(row.token);
    rows_.push_back({reinterpret_cast<const int32_t*>(table.data()), row.position});
  }
  FATHOM_CHECK(std::ssize(with_logits_) <= limits_.logits_rows, "{} rows with logits of {}",
               with_logits_.size(), limits_.logits_rows);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(const RankModel& model,
                                                       const Checkpoint& checkpoint,
                                                       const DecoderLimits& limits, KvCache* kv,
                                                       Comm* comm, kernels::ThreadPool* pool,
                                                       Progress* progress) {
  const RankPlace& place = model.place;
  FATHOM_CHECK(limits.step_tokens > 0 && limits.logits_rows > 0 && limits.context_tokens > 0 &&
                   comm->rank() == place.tp_rank && comm->size() == place.tp,
               "rank {} of {}", place.tp_rank, place.tp);
  const KvShape& shape = kv->shape();
  FATHOM_CHECK(shape.layers == KvShapeOf(model, shape.block_tokens, shape.pool_blocks).layers,
               "the KV cache has the planes of another model or rank");
  for (const RankLayer& layer : model.layers) {
    FATHOM_CHECK(layer.attention.head_dim == model.rope_dim, "layer {}: one rotary table for all",
                 layer.index);
  }
  FATHOM_ASSIGN_OR_RETURN(auto weights, ModelWeights::Load(model, checkpoint));
  return std::make_unique<LlamaDecoder>(model, limits, std::move(weights), kv, comm, pool,
                                        progress);
}

}  // namespace fathom::worker
