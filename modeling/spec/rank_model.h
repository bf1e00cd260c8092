// modeling/spec/rank_model.h: what one rank of a tensor-parallel group holds of a model, or of one
// stage of its layers: every size and every slice, computed once. Loaders, layouts, memory plans
// and decoders read the result and compute no share themselves. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "modeling/spec/model_spec.h"

namespace fathom {

// The rows of each of `tp` ranks: rank r has [r * that, (r + 1) * that), cut at `rows`. Only a
// vocabulary is cut. The last rank then computes as many logits as the others; the logits beyond
// the vocabulary are never read.
constexpr int64_t RowsOfRank(int64_t rows, int32_t tp) { return (rows + tp - 1) / tp; }

// Half-open ranges of a tensor's rows and columns (a vector has one column).
struct TensorSlice {
  int64_t row_begin = 0, row_end = 0;
  int64_t col_begin = 0, col_end = 0;
  int64_t rows() const { return row_end - row_begin; }
  int64_t cols() const { return col_end - col_begin; }
  int64_t elements() const { return rows() * cols(); }
  bool operator==(const TensorSlice&) const = default;
};

// The slice that is the whole tensor.
TensorSlice WholeOf(const Parameter& parameter);
// The slice of rank `rank` of `tp`. REQUIRES: CheckTensorParallel of the parameter's model is OK; 0
// <= rank < tp.
TensorSlice SliceOf(const Parameter& parameter, int32_t tp, int32_t rank);

// OK if `tp` ranks can share the model: tp divides the heads and MLP widths of each layer; it
// divides the kv heads or is a multiple of them (the kv heads are then replicated); and each rank
// has a row of the vocabulary. Otherwise INVALID_ARGUMENT with the numbers that are possible.
absl::Status CheckTensorParallel(const ModelSpec& spec, int32_t tp);

// The place of a rank: one of `tp` ranks that share a layer, in one of `stages` that follow each
// other.
struct RankPlace {
  int32_t tp = 1;
  int32_t tp_rank = 0;
  int32_t stage = 0;
  int32_t stages = 1;
  bool operator==(const RankPlace&) const = default;
};

struct RankParameter {
  Parameter parameter;  // The parameter of the whole model.
  TensorSlice slice;
};

// A layer on one rank: its heads, KV planes and MLP width are those of the rank.
struct RankLayer {
  int32_t index = 0;  // Index in the model.
  AttentionSpec attention;
  MlpSpec mlp;
  std::vector<RankParameter> parameters;  // In the order of the forward pass.
  bool Has(ParameterRole role) const;
};

struct RankModel : ModelTraits {
  RankPlace place;
  std::vector<RankLayer> layers;  // The layers of the stage.
  // In the first stage. If tied, also in the last one; unless that is also the first one, only the
  // rows of the LM head are needed there (HeadRowsOfTied).
  std::optional<RankParameter> embedding;
  std::optional<RankParameter> final_norm;  // In the last stage, like the LM head.
  std::optional<RankParameter> lm_head;     // nullopt in the last stage: tied.
  int32_t vocab_rows = 0;  // Rows of the LM head on every rank; the last one may have fewer.

  bool is_first_stage() const { return place.stage == 0; }
  bool is_last_stage() const { return place.stage + 1 == place.stages; }
  bool tied() const { return is_last_stage() && !lm_head; }
  // The rows of the embedding that are the LM head of this rank. REQUIRES: tied().
  TensorSlice HeadRowsOfTied() const;
  // Every parameter of the rank, in the order of the forward pass.
  std::vector<const RankParameter*> Parameters() const;
};

// REQUIRES: CheckTensorParallel(spec, place.tp) and CheckStages(spec, place.stages) are OK; the
// place is within its numbers. Layers are divided among stages by their bytes (StagesOf).
RankModel RankOf(const ModelSpec& spec, const RankPlace& place = {});

// The elements of the rank's slices of the matrices that are read for every token, of its layers.
int64_t LayerMatrixElements(const RankModel& model);

// The largest sizes of a rank's layers, for buffers that all layers use.
struct LayerWidths {
  int64_t heads = 0, kv_heads = 0;
  int64_t q_rows = 0, qkv_rows = 0;
  int64_t mlp = 0;
  int64_t gate_up_rows = 0;  // Of the GEMM before the MLP's activation (Operand::kGateUp).
};
LayerWidths WidestOf(const RankModel& model);

// The bytes of `tokens` tokens in these planes, or in all planes of the rank's layers. With a
// block's tokens it gives the bytes of a block, with 1 those of a token. No other code counts KV
// bytes.
int64_t KvBytes(std::span<const KvPlane> planes, int64_t element_bytes, int64_t tokens);
int64_t KvBytes(const RankModel& model, int64_t element_bytes, int64_t tokens);

}  // namespace fathom
