// What a router reads from a model folder.
#include "router/api/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/process.h"

namespace fathom::router {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;
namespace fs = std::filesystem;

class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("fathom-folder-" + RandomId())) {
    fs::create_directory(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
  }
  std::string path() const { return path_.string(); }

 private:
  fs::path path_;
};

// A configuration that ends with `keys`.
std::string Config(const std::string& keys) {
  return R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "intermediate_size": 96)" +
         keys + "}";
}
const std::string kConfig =
    Config(R"(, "vocab_size": 100, "max_position_embeddings": 64, "eos_token_id": 7)");

TEST(ModelFolder, ReadsTheBundledModel) {
  const auto folder = ReadModelFolder(FATHOM_SOURCE_DIR "/models/fathom-tiny/");
  ASSERT_TRUE(folder.ok()) << ToString(folder.status());
  EXPECT_EQ(folder->name, "fathom-tiny");
  EXPECT_EQ(folder->vocab, 4096);
  EXPECT_EQ(folder->context_tokens, 4096);
  EXPECT_EQ(folder->end_token_ids, std::vector<TokenId>{1});
  EXPECT_EQ(folder->defaults.temperature, 0.7f);
  EXPECT_EQ(folder->defaults.top_p, 0.95f);
  EXPECT_FALSE(folder->defaults.top_k.has_value());
  EXPECT_TRUE(folder->has_tokenizer);
  EXPECT_EQ(folder->config_digest.size(), 64u);
}

// The configuration with its overrides is parsed, and the digest covers it.
TEST(ModelFolder, Overrides) {
  const Folder folder;
  folder.Write("config.json", kConfig);
  const auto plain = ReadModelFolder(folder.path());
  ASSERT_TRUE(plain.ok()) << ToString(plain.status());
  const auto read =
      ReadModelFolder(folder.path(), R"({"max_position_embeddings": 32, "eos_token_id": null})");
  ASSERT_TRUE(read.ok()) << ToString(read.status());
  EXPECT_EQ(read->context_tokens, 32);
  EXPECT_TRUE(read->end_token_ids.empty());
  EXPECT_NE(read->config_digest, plain->config_digest);
  // A missing key has the default of the architecture.
  const auto missing = ReadModelFolder(folder.path(), R"({"max_position_embeddings": null})");
  EXPECT_EQ(missing->context_tokens, 2048);
  EXPECT_THAT(std::string(Message(ReadModelFolder(folder.path(), "[1]").status())),
              HasSubstr("--hf-overrides is [1]"));
}

TEST(ModelFolder, GenerationConfigDecidesEndTokens) {
  const Folder folder;
  folder.Write("config.json", kConfig);
  EXPECT_EQ(ReadModelFolder(folder.path())->end_token_ids, std::vector<TokenId>{7});
  folder.Write("generation_config.json", R"({"eos_token_id": [9, 3, 9], "top_k": 20})");
  const auto read = ReadModelFolder(folder.path());
  ASSERT_TRUE(read.ok()) << ToString(read.status());
  EXPECT_EQ(read->end_token_ids, (std::vector<TokenId>{3, 9}));
  EXPECT_EQ(read->defaults.top_k, 20);
  EXPECT_FALSE(read->has_tokenizer);
}

// Recommendations of a model's authors beyond the limits of a request become the limits, with a
// note.
TEST(ModelFolder, DefaultsStayWithinTheLimitsOfARequest) {
  const Folder folder;
  folder.Write("config.json", kConfig);
  folder.Write("generation_config.json",
               R"({"temperature": 2.5, "top_k": -1, "repetition_penalty": 1e-6, "top_p": 1.0,
                   "typical_p": 1.5})");
  auto read = ReadModelFolder(folder.path());
  ASSERT_TRUE(read.ok()) << ToString(read.status());
  EXPECT_EQ(read->defaults.temperature, 2.0f);
  EXPECT_EQ(read->defaults.top_k, 0);
  EXPECT_EQ(read->defaults.repetition_penalty, 0.001f);
  EXPECT_EQ(read->defaults.top_p, 1.0f);
  EXPECT_EQ(read->defaults.typical_p, 1.0f);
  EXPECT_THAT(read->notes, UnorderedElementsAre(HasSubstr("temperature 2.5"), HasSubstr("top_k -1"),
                                                HasSubstr("typical_p 1.5"),
                                                HasSubstr("repetition_penalty 1e-06")));
  read = ReadModelFolder(folder.path(), "", R"({"temperature": 0.5, "do_sample": null})");
  ASSERT_TRUE(read.ok()) << ToString(read.status());
  EXPECT_EQ(read->defaults.temperature, 0.5f);
}

TEST(ModelFolder, StopStringsNeedATokenizer) {
  const Folder folder;
  folder.Write("config.json", kConfig);
  folder.Write("generation_config.json", R"({"stop_strings": ["END"]})");
  const auto refused = ReadModelFolder(folder.path());
  EXPECT_THAT(std::string(Message(refused.status())),
              AllOf(HasSubstr("stop_strings"), HasSubstr("--override-generation-config")));
  EXPECT_TRUE(ReadModelFolder(folder.path(), "", R"({"stop_strings": null})").ok());
  folder.Write("tokenizer.json", "{}");
  EXPECT_THAT(ReadModelFolder(folder.path())->defaults.stop_strings, ElementsAre("END"));
}

TEST(ModelFolder, BadFilesAreNamed) {
  // The same messages as in the workers (modeling_model_config_test has the other cases).
  const std::pair<std::string, const char*> configs[] = {
      {"", "not valid JSON"},
      {"[1]", "expected a JSON object"},
      {Config(""), "vocab_size is missing"},
      {Config(R"(, "vocab_size": 99999999999)"), "vocab_size is 99999999999"},
      {Config(R"(, "vocab_size": 100, "max_position_embeddings": 0)"),
       "max_position_embeddings is 0"},
      {Config(R"(, "vocab_size": 100, "eos_token_id": 100)"), "eos_token_id is 100"},
      {Config(R"(, "vocab_size": 100, "surprise": 1)"), "surprise = 1"},
  };
  for (const auto& [text, expected] : configs) {
    const Folder folder;
    folder.Write("config.json", text);
    const auto read = ReadModelFolder(folder.path());
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_THAT(std::string(Message(read.status())), HasSubstr(expected));
    EXPECT_THAT(std::string(Message(read.status())), HasSubstr("config.json"));
  }
  const Folder folder;
  EXPECT_EQ(ReadModelFolder(folder.path()).status().code(), absl::StatusCode::kNotFound);
  folder.Write("config.json", kConfig);
  for (const char* text :
       {R"({"temperature": -3})", R"({"num_beams": 4})", R"({"top_k": "x"})", R"({"min_p": -1})"}) {
    folder.Write("generation_config.json", text);
    EXPECT_EQ(ReadModelFolder(folder.path()).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

}  // namespace
}  // namespace fathom::router
