// modeling/spec/rank_model.h: what one rank of a tensor-parallel group holds of a model, or of one
// stage of its layers: every size and every slice, computed once. Loaders, layouts, memory plans
// and decoders read it and divide nothing themselves. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "modeling/spec/model_spec.h"

namespace fathom::worker {

// Rows of each of `tp` ranks: rank r has [r * that, (r + 1) * that), cut at `rows`. Only a
// vocabulary's are cut; the last rank computes as many logits as the others, and what lies behind
// the vocabulary is never read.
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

// All of the tensor.
TensorSlice WholeOf(const Parameter& parameter);
// What rank `rank` of `tp` holds. REQUIRES: CheckTensorParallel is OK of the parameter's model;
// 0 <= rank < tp.
TensorSlice SliceOf(const Parameter& parameter, int32_t tp, int32_t rank);

// OK when `tp` ranks can share the model: tp divides the heads and MLP widths of each layer, and
// divides its kv heads or is a multiple of them (kv heads are then replicated), and each rank has a
// row of the vocabulary. Else INVALID_ARGUMENT with the numbers that would do.
absl::Status CheckTensorParallel(const ModelSpec& spec, int32_t tp);

// Where a rank is: one of `tp` that share a layer, in one of `stages` that follow each other.
struct RankPlace {
  int32_t tp = 1;
  int32_t tp_rank = 0;
  int32_t stage = 0;
  int32_t stages = 1;
  bool operator==(const RankPlace&) const = default;
};

struct RankParameter {
  Parameter parameter;  // Of the whole model.
  TensorSlice slice;
};

// A layer on one rank: the heads, KV planes and MLP width are the rank's.
struct RankLayer {
  int32_t index = 0;  // In the model.
  AttentionSpec attention;
  MlpSpec mlp;
  std::vector<RankParameter> parameters;  // In the order of the forward pass.
  bool Has(ParameterRole role) const;
};

struct RankModel : ModelTraits {
  RankPlace place;
  std::vector<RankLayer> layers;            // Of the stage.
  std::optional<RankParameter> embedding;   // In the first stage; tied, in the last one too.
  std::optional<RankParameter> final_norm;  // In the last stage, like the head.
  std::optional<RankParameter> lm_head;     // None in the last stage: tied.
  int32_t vocab_rows = 0;  // Of the head, on all ranks but the last, which may have fewer.

  bool is_first_stage() const { return place.stage == 0; }
  bool is_last_stage() const { return place.stage + 1 == place.stages; }
  bool tied() const { return is_last_stage() && !lm_head; }
  // Every parameter of the rank, in the order of the forward pass.
  std::vector<const RankParameter*> Parameters() const;
};

// REQUIRES: CheckTensorParallel(spec, place.tp) is OK; the place is within its numbers; stages are
// no more than layers. Layers are shared out to stages evenly, the first stages have one more.
RankModel RankOf(const ModelSpec& spec, const RankPlace& place = {});

// The largest of a rank's layers: what buffers that serve all of them are made for.
struct LayerWidths {
  int64_t heads = 0, kv_heads = 0;
  int64_t q_rows = 0, qkv_rows = 0;
  int64_t mlp = 0;
};
LayerWidths WidestOf(const RankModel& model);

// Bytes of `tokens` tokens in these planes, or in all planes of the rank's layers: of a block with
// its tokens, of a token with 1. The one place where KV bytes are counted.
int64_t KvBytes(std::span<const KvPlane> planes, int64_t element_bytes, int64_t tokens);
int64_t KvBytes(const RankModel& model, int64_t element_bytes, int64_t tokens);

}  // namespace fathom::worker
