#include "cli/verify/golden.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace fathom::client {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(GoldenTest, BundledGoldensParse) {
  const auto goldens = ParseGoldens(
      ReadFile(FATHOM_SOURCE_DIR "/tests/data/goldens/fathom-tiny.jsonl"), "fathom-tiny.jsonl");
  ASSERT_TRUE(goldens.ok()) << ToString(goldens.status());
  ASSERT_EQ(goldens->size(), 23u);
  int conversations = 0, prompts = 0, thinking = 0, tools = 0;
  for (const Golden& golden : *goldens) {
    EXPECT_FALSE(golden.fixture);
    EXPECT_EQ(golden.top.size(), golden.output_ids.size()) << golden.name;
    conversations += golden.conversation ? 1 : 0;
    prompts += golden.prompt ? 1 : 0;
    if (!golden.conversation) continue;
    thinking += golden.conversation->enable_thinking.value_or(false) ? 1 : 0;
    tools += golden.conversation->tools_json.empty() ? 0 : 1;
  }
  EXPECT_EQ(conversations, 18);
  EXPECT_EQ(prompts, 4);
  EXPECT_EQ(thinking, 1);
  EXPECT_EQ(tools, 1);
}

TEST(GoldenTest, ToolsKeepTheOrderOfKeys) {
  const auto goldens = ParseGoldens(
      R"({"messages":[{"role":"user","content":"x"}],"tools":[{"z":1,"a":2}],"rendered":null,)"
      R"("prompt_ids":[1],"output_ids":[2]})",
      "f");
  ASSERT_TRUE(goldens.ok());
  EXPECT_EQ((*goldens)[0].conversation->tools_json, R"([{"z":1,"a":2}])");
}

TEST(GoldenTest, NoDigitOfToolsIsLost) {
  const auto parse = [](const std::string& tools) {
    return ParseGoldens(R"({"messages":[{"role":"user","content":"x"}],"rendered":null,)"
                        R"("prompt_ids":[1],"output_ids":[2],"tools":)" +
                            tools + "}",
                        "f");
  };
  const auto whole = parse(R"([{"max":18446744073709551615,"min":-9223372036854775808}])");
  ASSERT_TRUE(whole.ok()) << ToString(whole.status());
  EXPECT_EQ((*whole)[0].conversation->tools_json,
            R"([{"max":18446744073709551615,"min":-9223372036854775808}])");
  const absl::Status lost = parse(R"([{"max":18446744073709551616}])").status();
  ASSERT_TRUE(absl::IsInvalidArgument(lost));
  EXPECT_NE(Message(lost).find("tools: a number beyond 64 bits"), std::string::npos)
      << Message(lost);
  const auto text = parse(R"("[{\"max\":18446744073709551616}]")");
  ASSERT_TRUE(text.ok()) << ToString(text.status());
  EXPECT_EQ((*text)[0].conversation->tools_json, R"([{"max":18446744073709551616}])");
}

TEST(GoldenTest, FixtureHasNoRendering) {
  const auto goldens = ParseGoldens(
      "{\"prompt_ids\":[0,81],\"prompt_logprobs\":[null,-1.5],\"output_ids\":[7],"
      "\"logprobs\":[-0.5]}\n\n",
      "f");
  ASSERT_TRUE(goldens.ok());
  ASSERT_EQ(goldens->size(), 1u);
  EXPECT_TRUE((*goldens)[0].fixture);
  EXPECT_EQ((*goldens)[0].prompt_logprobs, (std::vector<double>{0, -1.5}));
  EXPECT_EQ((*goldens)[0].name, "line 1");
  EXPECT_TRUE((*goldens)[0].gaps.empty());
}

TEST(GoldenTest, GapsAreRecordedOrOfTheTop) {
  const auto goldens =
      ParseGoldens(R"({"prompt_ids":[1],"output_ids":[7,8],"margins":[0.5,0.25]})"
                   "\n"
                   R"({"prompt_ids":[1],"output_ids":[7],"top5":[[[7,8],[-0.5,-2.0]]]})"
                   "\n"
                   R"({"prompt_ids":[1],"output_ids":[7],"top5":[[[7],[-0.5]]]})",
                   "f");
  ASSERT_TRUE(goldens.ok()) << ToString(goldens.status());
  EXPECT_EQ((*goldens)[0].gaps, (std::vector<double>{0.5, 0.25}));
  EXPECT_EQ((*goldens)[1].gaps, (std::vector<double>{1.5}));
  EXPECT_TRUE((*goldens)[2].gaps.empty());
}

TEST(GoldenTest, ErrorsNameFileAndLine) {
  for (const char* line : {"{", "[]", "{}", R"({"prompt_ids":[],"output_ids":[1]})",
                           R"({"prompt_ids":[1],"output_ids":[1],"logprobs":[1,2]})",
                           R"({"prompt_ids":[1],"output_ids":[1],"prompt_logprobs":[1,2]})",
                           R"({"prompt_ids":[1],"output_ids":[1],"margins":[1,2]})",
                           R"({"prompt_ids":["x"],"output_ids":[1]})",
                           R"({"prompt_ids":[1],"output_ids":[1],"top5":[[[1,2],[0.1]]]})",
                           R"({"messages":[{"content":"x"}],"prompt_ids":[1],"output_ids":[1]})"}) {
    const auto goldens = ParseGoldens(std::string("\n") + line, "file.jsonl");
    ASSERT_TRUE(absl::IsInvalidArgument(goldens.status())) << line;
    EXPECT_EQ(Message(goldens.status()).substr(0, 13), "file.jsonl:2:") << line;
  }
  EXPECT_FALSE(ParseGoldens("\n", "empty.jsonl").ok());
}

}  // namespace
}  // namespace fathom::client
