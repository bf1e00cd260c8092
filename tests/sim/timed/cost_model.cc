#include "tests/sim/timed/cost_model.h"

#include <algorithm>
#include <cmath>

namespace fathom::sim {

double StepUs(const GroupCosts& costs, const StepWork& work) {
  const ShapeCosts& shape = costs.shape;
  // In bytes, and in operations, for each microsecond of the group.
  const double read = costs.read_tbs * 1e6 * costs.tp;
  const double matrix = costs.matrix_tflops * 1e6 * costs.tp;
  const double read_kv = shape.kv_is_split ? read : costs.read_tbs * 1e6;
  double weights = shape.weight_bytes;
  if (shape.experts > 0) {
    const double unused = 1 - static_cast<double>(shape.experts_of_row) / shape.experts;
    weights += shape.expert_bytes * shape.experts * (1 - std::pow(unused, work.rows));
  }
  const double products = shape.row_flops * work.rows + shape.head_flops * work.sampled;
  const double gemms_us = std::max(weights / read, products / (matrix * shape.product_rate));
  const double decode_us = std::max(work.decode_context * shape.kv_token_bytes / read_kv,
                                    work.decode_context * shape.decode_pair_flops / matrix);
  const double chunks_us = std::max(work.chunk_context * shape.kv_token_bytes / read_kv,
                                    work.chunk_pairs * shape.chunk_pair_flops / matrix);
  return (gemms_us + decode_us + chunks_us) / costs.efficiency + costs.sums_us +
         costs.sums_row_us * work.rows;
}

double CopyUs(const GroupCosts& costs, double tokens) {
  return tokens * costs.shape.kv_token_bytes / (costs.host_tbs * 1e6) /
         (costs.shape.kv_is_split ? costs.tp : 1);
}

}  // namespace fathom::sim
