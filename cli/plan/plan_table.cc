#include "cli/plan/plan_table.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "modeling/architectures/architecture.h"
#include "modeling/layout/gpu_cards.h"
#include "modeling/spec/rank_model.h"
#include "modeling/spec/stages.h"

namespace fathom::client {
namespace {

constexpr int32_t kTableTps[] = {1, 2, 4, 8};  // The GPUs of one host that share a layer.

TableCell CellOf(const TableModel& model, const TableRow& row, const std::string& gpu,
                 PlanFlags flags) {
  TableCell cell{.gpu = gpu};
  const ModelSpec spec = SpecOf(model.config);
  flags.gpu = gpu;
  flags.context = fmt::format("{}", row.context_tokens);
  for (const int32_t tp : kTableTps) {
    if (const auto divides = CheckTensorParallel(spec, tp); !divides.ok()) {
      if (cell.reason.empty()) cell.reason = std::string(Message(divides));
      continue;
    }
    flags.tp = tp;
    const auto report = MakePlanReport(model.name, model.config, flags);
    if (!report.ok()) {
      cell.reason = std::string(Message(report.status()));
      continue;
    }
    const int64_t tokens = report->plan().pool_tokens();
    if (tokens < int64_t{row.sequences} * row.context_tokens) {
      cell.reason = fmt::format("its KV blocks hold {} tokens, {} sequences of {} need {}", tokens,
                                row.sequences, row.context_tokens,
                                int64_t{row.sequences} * row.context_tokens);
      continue;
    }
    cell.tp = tp;
    cell.reason.clear();
    cell.pool_tokens = tokens;
    cell.sequences = static_cast<double>(tokens) / row.context_tokens;
    if (!report->floors.empty()) cell.floor_ms = report->floors.front().ms;
    return cell;
  }
  return cell;
}

std::string Thousands(int64_t tokens) {
  if (tokens < 10'000) return fmt::format("{}", tokens);
  if (tokens < 10'000'000) return fmt::format("{}k", tokens / 1000);
  return fmt::format("{:.1f}M", static_cast<double>(tokens) / 1e6);
}

}  // namespace

absl::StatusOr<std::vector<TableRow>> MakePlanTable(const std::vector<TableModel>& models,
                                                    const std::vector<std::string>& cards,
                                                    const PlanFlags& flags) {
  FATHOM_ASSIGN_OR_RETURN(const int32_t context, ParseContextTokens(flags.context));
  std::vector<TableRow> rows;
  for (const TableModel& model : models) {
    FATHOM_RETURN_IF_ERROR(CheckStages(SpecOf(model.config), flags.pp));
    TableRow row{.model = model.name,
                 .context_tokens =
                     context > 0 ? std::min(context, model.config.context) : model.config.context,
                 .sequences = std::max(flags.slots, 1)};
    for (const std::string& gpu : cards) {
      row.cells.push_back(CellOf(model, row, gpu, flags));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string ToText(const std::vector<TableRow>& rows) {
  if (rows.empty() || rows.front().cells.empty()) return "";
  std::string text = fmt::format("{:<24} {:>9} {:>5}  {:<9}", "model", "context", "seqs", "");
  for (const TableCell& cell : rows.front().cells) text += fmt::format(" {:>10}", cell.gpu);
  text += '\n';
  for (const TableRow& row : rows) {
    const auto line = [&](const std::string& head, const char* what, auto value) {
      text += fmt::format("{:<40}  {:<9}", head, what);
      for (const TableCell& cell : row.cells) {
        text += fmt::format(" {:>10}", cell.tp == 0 ? std::string("-") : value(cell));
      }
      text += '\n';
    };
    line(fmt::format("{:<24} {:>9} {:>5}", row.model, row.context_tokens, row.sequences), "-tp",
         [](const TableCell& c) { return fmt::format("{}", c.tp); });
    line("", "KV tokens", [](const TableCell& c) { return Thousands(c.pool_tokens); });
    line("", "sequences", [](const TableCell& c) { return fmt::format("{:.1f}", c.sequences); });
    line("", "ms/token", [](const TableCell& c) { return fmt::format("{:.2f}", c.floor_ms); });
  }
  for (const TableRow& row : rows) {
    const bool none = std::ranges::all_of(row.cells, [](const TableCell& c) { return c.tp == 0; });
    if (none)
      text += fmt::format("{} fits no card; the last: {}\n", row.model, row.cells.back().reason);
  }
  return text +
         "-tp: the smallest of 1, 2, 4, 8 with which `seqs` sequences of `context` tokens fit; "
         "-: none.\nKV tokens, sequences: what the KV blocks hold then. ms/token: the least time, "
         "by reading weights and KV at the card's bandwidth, sums of ranks as over NVLink "
         "(fathom plan --gpu CARD has more).\n";
}

nlohmann::ordered_json ToJson(const std::vector<TableRow>& rows) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const TableRow& row : rows) {
    nlohmann::ordered_json cells = nlohmann::ordered_json::array();
    for (const TableCell& cell : row.cells) {
      nlohmann::ordered_json one = {{"gpu", cell.gpu}, {"fits", cell.tp > 0}};
      if (cell.tp > 0) {
        one.update({{"tp", cell.tp},
                    {"pool_tokens", cell.pool_tokens},
                    {"sequences", cell.sequences},
                    {"floor_ms", cell.floor_ms}});
      } else {
        one["reason"] = cell.reason;
      }
      cells.push_back(std::move(one));
    }
    all.push_back({{"model", row.model},
                   {"context_tokens", row.context_tokens},
                   {"sequences", row.sequences},
                   {"cells", std::move(cells)}});
  }
  return {{"rows", std::move(all)}};
}

}  // namespace fathom::client
