// Checks docs/MODELS.md's table of published models. The table is made by the parser from small
// configurations that have the published keys (tests/data/configs/published).
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/status.h"
#include "modeling/config/model_config.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBegin =
    "<!-- Made by tests/modeling/published_models_test.cc; FATHOM_UPDATE=1 rewrites it. -->\n";
constexpr std::string_view kEnd = "<!-- End of the table. -->\n";

std::string RopeText(const RopeConfig& rope) {
  switch (rope.scaling) {
    case RopeScaling::kNone:
      return "plain";
    case RopeScaling::kLinear:
      return fmt::format("linear, {}", rope.factor);
    case RopeScaling::kLlama3:
      return fmt::format("llama3, {}", rope.factor);
    case RopeScaling::kYarn:
      return fmt::format("yarn, {} (cos and sin by {:.4g})", rope.factor, rope.attention_factor);
  }
  return "";
}

// The text of a cell: without bars, and cut to a readable length.
std::string Cell(std::string text) {
  constexpr size_t kBytesMax = 240;
  std::replace(text.begin(), text.end(), '|', '/');
  return text.size() > kBytesMax ? text.substr(0, kBytesMax) + "..." : text;
}

std::string Row(const fs::path& file) {
  const std::string text = testing::ReadFile(file);
  const auto json = nlohmann::json::parse(text);
  const std::string name = json.at("_name_or_path");
  const std::string architecture = json.at("architectures").at(0);
  const auto config = ParseModelConfig(text);
  if (!config.ok()) {
    return fmt::format("| {} | {} | refused: {} |\n", name, architecture,
                       Cell(std::string(Message(config.status()))));
  }
  return fmt::format("| {} | {} | served: {} tokens, {} kv heads of {}, rotary embedding {}{} |\n",
                     name, architecture, config->context, config->kv_heads, config->head_dim,
                     RopeText(config->rope), config->tied_embeddings ? ", tied embeddings" : "");
}

std::string Table() {
  std::vector<fs::path> files;
  for (const auto& entry :
       fs::directory_iterator(fs::path(FATHOM_SOURCE_DIR) / "tests/data/configs/published")) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  EXPECT_GE(files.size(), 40u);
  std::string table = "| published model | architecture | what Fathom says |\n|---|---|---|\n";
  for (const fs::path& file : files) table += Row(file);
  return table;
}

TEST(PublishedModels, TheManualSaysWhatTheParserSays) {
  const fs::path manual = fs::path(FATHOM_SOURCE_DIR) / "docs/MODELS.md";
  std::string text = testing::ReadFile(manual);
  const size_t begin = text.find(kBegin);
  const size_t end = text.find(kEnd);
  ASSERT_NE(begin, std::string::npos);
  ASSERT_NE(end, std::string::npos);
  const size_t from = begin + kBegin.size();
  const std::string table = Table();
  if (std::getenv("FATHOM_UPDATE") != nullptr) {
    testing::WriteFile(manual, text.replace(from, end - from, table));
    return;
  }
  EXPECT_EQ(text.substr(from, end - from), table);
}

}  // namespace
}  // namespace fathom
