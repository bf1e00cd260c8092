// The table of reasons is in the order of the enumeration, has each text once, and equals the table
// of docs/API.md.
#include "common/reason.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace fathom {
namespace {

TEST(Reasons, RowsAreInTheOrderOfTheEnumerationAndTextsAreUnique) {
  std::set<std::string_view> texts;
  int index = 0;
  for (const ReasonRow& row : Reasons()) {
    EXPECT_EQ(static_cast<int>(row.reason), index++) << row.text;
    EXPECT_TRUE(texts.insert(row.text).second) << row.text;
    EXPECT_EQ(row.text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_08"), std::string_view::npos)
        << row.text;
  }
  EXPECT_EQ(static_cast<int>(Reason::kPermissionDenied) + 1, index);
  EXPECT_EQ(ReasonText(Reason::kQueueFull), "QUEUE_FULL");
}

TEST(Reasons, WithReasonAttachesTheDetail) {
  const absl::Status status =
      WithReason(Exhausted("full"), Reason::kQueueFull, "prompt", /*retry_after_ms=*/7);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(status)->reason, "QUEUE_FULL");
  EXPECT_EQ(DetailOf(status)->field, "prompt");
  EXPECT_EQ(DetailOf(status)->retry_after_ms, 7);
  EXPECT_EQ(DetailOf(WithReason(Invalid("no"), Reason::kEmptyPrompt))->field, "");
}

// Prints the rows that the manual lacks, and the manual's lines that have no row.
TEST(Reasons, TheManualShowsTheTable) {
  std::ifstream file(FATHOM_SOURCE_DIR "/docs/API.md");
  std::set<std::string> shown;
  std::string line;
  bool errors = false;
  while (std::getline(file, line)) {
    if (line.starts_with("## ")) errors = line == "## Errors";
    if (errors && line.starts_with("| `")) shown.insert(line);
  }
  std::set<std::string> expected;
  for (const ReasonRow& row : Reasons()) {
    std::string codes(CodeName(row.code));
    if (row.other_code != absl::StatusCode::kOk) {
      codes += fmt::format(", {}", CodeName(row.other_code));
    }
    expected.insert(fmt::format("| `{}` | {} | {} |", row.text, codes, row.meaning));
  }
  for (const std::string& row : expected) EXPECT_TRUE(shown.contains(row)) << "missing: " << row;
  for (const std::string& row : shown) EXPECT_TRUE(expected.contains(row)) << "no row: " << row;
}

}  // namespace
}  // namespace fathom
