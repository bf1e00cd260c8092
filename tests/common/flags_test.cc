#include "common/flags.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "common/flag_names.h"

namespace fathom {
namespace {

// The flags of an invented server, parsed from `words`.
struct Parsed {
  std::string model = "none";
  int32_t seqs = 64, tp = 1, port = 8000;
  int64_t kv_bytes = 0;
  bool json = false;
  std::string device = "auto", prompt;
  std::vector<std::string> files = {"default"};
  std::optional<int> exit;
  std::string error;

  explicit Parsed(std::vector<const char*> words) {
    Flags flags("fathom serve", "A test");
    flags.Add("--model", &model, "Model folder");
    flags.Group("Limits");
    flags.Add("--max-num-seqs", &seqs, 1, 4096, "Sequences at once");
    flags.Add("--tensor-parallel-size,-tp", &tp, 1, 64, "Ranks");
    flags.AddBytes("--kv-cache-memory", &kv_bytes, "KV bytes");
    flags.AddPort("--http-port", &port, "Port");
    flags.Add("--json", &json, "JSON");
    flags.Add("--goldens", &files, "Files");
    flags.AddChoice("--device", &device, {"auto", "cpu"}, "Device");
    flags.AddPositional("PROMPT", &prompt, false, "Text");
    words.insert(words.begin(), "fathom");
    testing::internal::CaptureStderr();
    exit = flags.Parse(static_cast<int>(words.size()), words.data());
    error = testing::internal::GetCapturedStderr();
  }
};

TEST(Flags, AllForms) {
  const Parsed p({"--model", "m", "-tp", "2", "--max-num-seqs=8", "--kv-cache-memory", "16G",
                  "--json", "--device", "cpu", "hello there"});
  ASSERT_EQ(p.exit, std::nullopt) << p.error;
  EXPECT_EQ(p.model, "m");
  EXPECT_EQ(p.tp, 2);
  EXPECT_EQ(p.seqs, 8);
  EXPECT_EQ(p.kv_bytes, int64_t{16} << 30);
  EXPECT_TRUE(p.json);
  EXPECT_EQ(p.prompt, "hello there");
}

TEST(Flags, RepeatableReplacesItsDefaultAndTakesSeveral) {
  const Parsed p({"--goldens", "a", "b", "--goldens", "c"});
  ASSERT_EQ(p.exit, std::nullopt) << p.error;
  EXPECT_EQ(p.files, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(Parsed({}).files, (std::vector<std::string>{"default"}));
}

TEST(Flags, ForeignNamesWithTheSameMeaningAreTaken) {
  EXPECT_EQ(Parsed({"--max-num-batches", "9"}).seqs, 9);
  EXPECT_EQ(Parsed({"--max_num_seqs", "10"}).seqs, 10);
  EXPECT_EQ(Parsed({"--tensor_parallel_size=4"}).tp, 4);
}

struct Refusal {
  std::vector<const char*> words;
  const char* says;
};

class Refused : public testing::TestWithParam<Refusal> {};

TEST_P(Refused, ExitsUsageAndSaysWhy) {
  const Parsed p(GetParam().words);
  EXPECT_EQ(p.exit, kExitUsage);
  EXPECT_NE(p.error.find(GetParam().says), std::string::npos) << p.error;
}

INSTANTIATE_TEST_SUITE_P(
    Table, Refused,
    testing::Values(Refusal{{"--max-num-seq", "1"}, "did you mean --max-num-seqs?"},
                    Refusal{{"--num-gpu", "2"}, "use -tp N"},
                    Refusal{{"--disable-kv-cache"}, "quadratic"},
                    Refusal{{"--quantization", "fp8"}, "bf16, fp16 or fp32"},
                    Refusal{{"--enable-prefix-caching"}, "give it to fathom-scheduler"},
                    Refusal{{"--seed", "0"}, "belongs to the request"},
                    Refusal{{"--max-num-seqs", "0"},
                            "--max-num-seqs: 0 is out of range; give a number from 1 to 4096"},
                    Refusal{{"--max-num-seqs", "many"}, "'many' is not a number"},
                    Refusal{{"--kv-cache-memory", "16X"}, "not a size"},
                    Refusal{{"--device", "tpu"}, "'tpu' is not one of auto, cpu"},
                    Refusal{{"--http-port", "70000"}, "from 0 to 65535"},
                    Refusal{{"--config", "/nonexistent.yaml"}, "/nonexistent.yaml"}));

TEST(Flags, ASwitchGoesOffToo) {
  EXPECT_TRUE(Parsed({"--json"}).json);
  EXPECT_FALSE(Parsed({"--json=false"}).json);
  setenv("FATHOM_JSON", "true", 1);
  EXPECT_TRUE(Parsed({}).json);
  EXPECT_FALSE(Parsed({"--no-json"}).json);
  unsetenv("FATHOM_JSON");
}

TEST(Flags, FlagOverEnvironmentOverFile) {
  const std::string path = testing::TempDir() + "flags_test.yaml";
  std::ofstream(path)
      << "max-num-seqs: 5\nhttp-port: 81\nmodel: from-file\ngoldens: [x, y]\njson: true\n";
  setenv("FATHOM_HTTP_PORT", "82", 1);
  setenv("FATHOM_MODEL", "from-env", 1);
  const Parsed p({"--config", path.c_str(), "--model", "from-flag"});
  unsetenv("FATHOM_HTTP_PORT");
  unsetenv("FATHOM_MODEL");
  ASSERT_EQ(p.exit, std::nullopt) << p.error;
  EXPECT_EQ(p.seqs, 5);
  EXPECT_EQ(p.port, 82);
  EXPECT_EQ(p.model, "from-flag");
  EXPECT_TRUE(p.json);
  EXPECT_EQ(p.files, (std::vector<std::string>{"x", "y"}));
}

// The pod's namespace has a Service named "fathom-http", and a deployment leaves a value empty.
TEST(Flags, ServiceLinksAndEmptyVariablesAreNoSettings) {
  for (const char* link : {"tcp://10.0.0.1:8001", "udp://10.0.0.1:53", "sctp://[fd00::1]:9"}) {
    setenv("FATHOM_HTTP_PORT", link, 1);
    const Parsed p({});
    EXPECT_EQ(p.exit, std::nullopt) << p.error;
    EXPECT_EQ(p.port, 8000);
    EXPECT_NE(p.error.find("FATHOM_HTTP_PORT="), std::string::npos) << p.error;
    EXPECT_NE(p.error.find("enableServiceLinks"), std::string::npos) << p.error;
    EXPECT_EQ(std::count(p.error.begin(), p.error.end(), '\n'), 1) << p.error;
    EXPECT_EQ(Parsed({"--http-port", "81"}).error, "") << "nothing was ignored";
  }
  const std::string path = testing::TempDir() + "flags_links.yaml";
  std::ofstream(path) << "http-port: 82\nmax-num-seqs: 5\n";
  EXPECT_EQ(Parsed({"--config", path.c_str()}).port, 82) << "the file is next";
  for (const char* name : {"FATHOM_HTTP_PORT", "FATHOM_MAX_NUM_SEQS", "FATHOM_MODEL", "FATHOM_JSON",
                           "FATHOM_KV_CACHE_MEMORY", "FATHOM_DEVICE", "FATHOM_CONFIG"}) {
    setenv(name, "", 1);
  }
  const Parsed empty({});
  EXPECT_EQ(empty.exit, std::nullopt) << empty.error;
  EXPECT_EQ(empty.error, "");
  EXPECT_EQ(empty.port, 8000);
  EXPECT_EQ(empty.model, "none");
  EXPECT_EQ(Parsed({"--config", path.c_str()}).seqs, 5);
  for (const char* name : {"FATHOM_HTTP_PORT", "FATHOM_MAX_NUM_SEQS", "FATHOM_MODEL", "FATHOM_JSON",
                           "FATHOM_KV_CACHE_MEMORY", "FATHOM_DEVICE", "FATHOM_CONFIG"}) {
    unsetenv(name);
  }
}

TEST(Flags, UnknownKeyNamesTheNearest) {
  const std::string path = testing::TempDir() + "flags_bad.yaml";
  std::ofstream(path) << "max-num-sqs: 5\n";
  const Parsed p({"--config", path.c_str()});
  EXPECT_EQ(p.exit, kExitUsage);
  EXPECT_NE(p.error.find("max-num-sqs"), std::string::npos);
  EXPECT_NE(p.error.find("did you mean --max-num-seqs?"), std::string::npos) << p.error;
}

TEST(FlagNames, Bytes) {
  EXPECT_EQ(ParseBytes("4096"), 4096);
  EXPECT_EQ(ParseBytes("512MiB"), 512 << 20);
  EXPECT_EQ(ParseBytes("1.5k"), 1536);
  EXPECT_EQ(ParseBytes("2GB"), int64_t{2} << 30);
  for (const char* bad : {"", "G", "-1", "1e30", "nan", "12Q", "1 G", "1GG"}) {
    EXPECT_EQ(ParseBytes(bad), std::nullopt) << bad;
  }
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(int64_t{512} << 20), "512 MiB");
}

}  // namespace
}  // namespace fathom
