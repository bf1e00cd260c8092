// modeling/spec/stages.h: how the layers of a model are divided into the stages of a pipeline. A
// stage has consecutive layers. The first stage also has the embedding, the last one the final norm
// and the LM head (with tied embeddings its own copy of the rows). Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "modeling/spec/model_spec.h"

namespace fathom {

// Half-open: the layers of a stage.
struct LayerRange {
  int32_t begin = 0, end = 0;
  int32_t size() const { return end - begin; }
  bool operator==(const LayerRange&) const = default;
};

// OK if each stage has a layer. Otherwise INVALID_ARGUMENT with the numbers that are possible.
absl::Status CheckStages(const ModelSpec& spec, int32_t stages);

// The division whose largest stage is as small as possible; among those, the one with the least sum
// of squares; among those, the one whose early stages have the fewest layers. Every stage has a
// layer. `first` and `last` are what the first and the last stage have besides their layers.
// REQUIRES: 1 <= stages <= layers; no size is negative.
std::vector<LayerRange> DivideLayers(std::span<const int64_t> layers, int64_t first, int64_t last,
                                     int32_t stages);

// The layers of each stage, divided by the bytes of the weights on tp rank 0. A matrix counts two
// bytes for each element, a vector four; so the type of a checkpoint does not change the division.
// REQUIRES: CheckTensorParallel(spec, tp) and CheckStages(spec, stages) are OK.
std::vector<LayerRange> StagesOf(const ModelSpec& spec, int32_t tp, int32_t stages);

}  // namespace fathom
