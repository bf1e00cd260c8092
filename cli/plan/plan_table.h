// cli/plan/plan_table.h: the table of `fathom plan --table`: which model fits which card, with
// which tensor parallelism, at a context and a number of sequences. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/plan/plan_report.h"

namespace fathom::client {

struct TableModel {
  std::string name;
  ModelConfig config;
};

// The smallest tensor parallelism that fits, and what fits then.
struct TableCell {
  std::string gpu;
  int32_t tp = 0;           // 0: none of 1, 2, 4, 8 fits or divides the model.
  int64_t pool_tokens = 0;  // In the KV blocks of a group.
  double sequences = 0;     // Of the row's context that these tokens hold.
  double floor_ms = 0;      // The least time for a token of one sequence.
  std::string reason;       // Why the last one that was tried does not fit.
};

struct TableRow {
  std::string model;
  int32_t context_tokens = 0;    // --max-model-len, else the model's own.
  int32_t sequences = 1;         // --max-num-seqs, else 1: so many must fit at that context.
  std::vector<TableCell> cells;  // One for each card, in their order.
};

// `cards` are names of modeling/layout/gpu_cards.h. All other flags are those of one plan; flags.tp
// and flags.gpu are not used. A plan that is refused makes a cell without a fit. INVALID_ARGUMENT:
// flags.context is no number.
absl::StatusOr<std::vector<TableRow>> MakePlanTable(const std::vector<TableModel>& models,
                                                    const std::vector<std::string>& cards,
                                                    const PlanFlags& flags);

std::string ToText(const std::vector<TableRow>& rows);
nlohmann::ordered_json ToJson(const std::vector<TableRow>& rows);

}  // namespace fathom::client
