// The table of `fathom plan --table`: the smallest tensor parallelism of each model on each card.
#include "cli/plan/plan_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/model_shape.h"

namespace fathom::client {
namespace {

using ::testing::HasSubstr;

std::vector<TableModel> TwoModels() {
  return {{"7b", Shape("deepseek-llm-7b")}, {"67b", Shape("deepseek-llm-67b")}};
}

TEST(PlanTableTest, EachCellIsTheSmallestPlanThatFits) {
  const std::vector<std::string> cards = {"h200", "h100", "l4"};
  const auto rows = MakePlanTable(TwoModels(), cards, {});
  ASSERT_TRUE(rows.ok()) << ToString(rows.status());
  ASSERT_EQ(rows->size(), 2);
  for (size_t i = 0; i < rows->size(); ++i) {
    const TableRow& row = (*rows)[i];
    EXPECT_EQ(row.context_tokens, 4096);
    ASSERT_EQ(row.cells.size(), cards.size());
    for (const TableCell& cell : row.cells) {
      PlanFlags flags{.gpu = cell.gpu, .tp = cell.tp, .context = "4096"};
      if (cell.tp == 0) {
        EXPECT_FALSE(cell.reason.empty());
        continue;
      }
      // The cell is what one plan with these flags says, and half as many GPUs do not do.
      const auto report = MakePlanReport(row.model, TwoModels()[i].config, flags);
      ASSERT_TRUE(report.ok());
      EXPECT_EQ(report->plan().pool_tokens(), cell.pool_tokens);
      EXPECT_GE(cell.sequences, 1.0);
      EXPECT_GT(cell.floor_ms, 0);
      if (cell.tp == 1) continue;
      flags.tp = cell.tp / 2;
      const auto half = MakePlanReport(row.model, TwoModels()[i].config, flags);
      EXPECT_TRUE(!half.ok() || half->plan().pool_tokens() < 4096);
    }
  }
  EXPECT_EQ((*rows)[0].cells[0].tp, 1);
  EXPECT_GE((*rows)[1].cells[1].tp, 2);  // 134 GB of weights on cards of 80 GB.
}

TEST(PlanTableTest, MoreSequencesNeedMoreGpus) {
  const std::vector<TableModel> models = {{"7b", Shape("deepseek-llm-7b")}};
  const auto few = MakePlanTable(models, {"h100"}, {.slots = 8});
  const auto many = MakePlanTable(models, {"h100"}, {.slots = 64});
  ASSERT_TRUE(few.ok() && many.ok());
  EXPECT_LT((*few)[0].cells[0].tp, (*many)[0].cells[0].tp);
  EXPECT_GE((*many)[0].cells[0].sequences, 64);
  const auto none = MakePlanTable(models, {"l4"}, {.slots = 4096});
  ASSERT_TRUE(none.ok());
  EXPECT_EQ((*none)[0].cells[0].tp, 0);
  EXPECT_THAT((*none)[0].cells[0].reason, HasSubstr("4096"));
  EXPECT_THAT(ToText(*none), HasSubstr("7b fits no card"));
  EXPECT_EQ(ToJson(*none)["rows"][0]["cells"][0]["fits"], false);
}

TEST(PlanTableTest, AContextThatIsNoNumberIsRefused) {
  EXPECT_FALSE(MakePlanTable(TwoModels(), {"h100"}, {.context = "long"}).ok());
}

}  // namespace
}  // namespace fathom::client
