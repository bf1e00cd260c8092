// Who may call what: the table of routes, keys, permissions, tenants, and the file that changes.
#include "router/api/access_control.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "router/api/requests.h"

namespace fathom::router {
namespace {

constexpr int64_t kNow = 1'800'000'000;

std::string ReasonOf(const absl::Status& status) {
  return DetailOf(status).value_or(ErrorDetail{}).reason;
}

struct KeyAndLine {
  std::string key, line;
};

KeyAndLine MakeKey(const std::string& tenant, const std::string& permissions,
                   int64_t expires_unix_s = 0) {
  KeyAndLine made{.key = NewApiKey(), .line = {}};
  made.line = FormatApiKeyEntry({.id = std::string(*IdOfApiKey(made.key)),
                                 .hash = HashOfApiKey(made.key),
                                 .tenant = tenant,
                                 .permissions = *ParsePermissions(permissions),
                                 .expires_unix_s = expires_unix_s});
  return made;
}

class AccessControlTest : public ::testing::Test {
 protected:
  AccessControlTest() {
    file_ = std::filesystem::temp_directory_path() / fmt::format("keys-{}", getpid());
    Write(infer_.line + "\n# a comment\n\n" + metrics_.line + "\r\n" + admin_.line + "\n" +
          expired_.line + "\n");
  }
  ~AccessControlTest() override { std::filesystem::remove(file_); }
  void Write(const std::string& text) const { std::ofstream(file_, std::ios::binary) << text; }
  absl::StatusOr<std::string> Ask(const std::string& key, std::string_view route) {
    bearer_ = key.empty() ? "" : "Bearer " + key;
    return control_->Admit({.authorization = bearer_, .api_key = {}}, route, kNow);
  }
  void Load() {
    control_.emplace(std::vector<std::string>{file_});
    const absl::Status loaded = control_->Load(kNow);
    ASSERT_TRUE(loaded.ok()) << ToString(loaded);
  }

  const KeyAndLine infer_ = MakeKey("a", "infer"), metrics_ = MakeKey("m", "metrics"),
                   admin_ = MakeKey("o", "admin"), expired_ = MakeKey("a", "infer,admin", kNow);
  std::string file_, bearer_;
  std::optional<AccessControl> control_;
};

TEST(AccessTable, EachRouteHasOneRow) {
  std::set<std::string_view> seen;
  for (const AccessRow& row : AccessTable()) {
    EXPECT_TRUE(seen.insert(row.route).second) << row.route;
    EXPECT_EQ(AccessOf(row.route), row.access);
  }
  EXPECT_EQ(AccessOf("GET /new"), Access::kNobody);
  EXPECT_EQ(AccessOf(""), Access::kNobody);
}

// The whole table with every kind of caller.
TEST_F(AccessControlTest, OnlyTheRowsPermissionOpensARoute) {
  Load();
  for (const AccessRow& row : AccessTable()) {
    const auto may = [&](const std::string& key) { return Ask(key, row.route).ok(); };
    const bool open = row.access == Access::kOpen, any = row.access == Access::kAnyKey;
    EXPECT_EQ(may(""), open) << row.route;
    EXPECT_EQ(may("nonsense"), open) << row.route;
    EXPECT_EQ(may(NewApiKey()), open) << row.route;
    EXPECT_EQ(may(expired_.key), open) << row.route;
    EXPECT_EQ(may(infer_.key), open || any || row.access == Access::kInfer) << row.route;
    EXPECT_EQ(may(metrics_.key), open || any || row.access == Access::kMetrics) << row.route;
    EXPECT_EQ(may(admin_.key), open || any || row.access == Access::kAdmin) << row.route;
  }
}

TEST_F(AccessControlTest, ARefusalSaysWhy) {
  Load();
  const std::string_view route = "POST /v1/completions";
  EXPECT_EQ(*Ask(infer_.key, route), "a");
  EXPECT_EQ(ReasonOf(Ask("", route).status()), "MISSING_API_KEY");
  EXPECT_EQ(ReasonOf(Ask("sk-other", route).status()), "INVALID_API_KEY");
  EXPECT_EQ(ReasonOf(Ask(expired_.key, route).status()), "EXPIRED_API_KEY");
  EXPECT_EQ(ReasonOf(Ask(admin_.key, route).status()), "PERMISSION_DENIED");
  // The secret decides, not the id.
  std::string other = infer_.key;
  other.back() = other.back() == '0' ? '1' : '0';
  EXPECT_EQ(ReasonOf(Ask(other, route).status()), "INVALID_API_KEY");
  // A route that does not exist is told to callers with a key only.
  EXPECT_FALSE(Ask("", "").ok());
  EXPECT_TRUE(Ask(infer_.key, "").ok());
  // One without a row is open to nobody.
  for (const std::string& key : {infer_.key, metrics_.key, admin_.key}) {
    EXPECT_EQ(ReasonOf(Ask(key, "POST /new").status()), "PERMISSION_DENIED");
  }
}

TEST_F(AccessControlTest, TheKeyComesInEitherHeader) {
  Load();
  const std::string bearer = "bEARER  " + infer_.key + " ", basic = "Basic " + infer_.key;
  const std::string_view route = "GET /v1/models";
  EXPECT_TRUE(control_->Admit({.authorization = bearer, .api_key = {}}, route, kNow).ok());
  EXPECT_TRUE(control_->Admit({.authorization = {}, .api_key = infer_.key}, route, kNow).ok());
  EXPECT_FALSE(control_->Admit({.authorization = basic, .api_key = {}}, route, kNow).ok());
  EXPECT_FALSE(control_->Admit({.authorization = infer_.key, .api_key = {}}, route, kNow).ok());
  // Authorization has precedence, so a proxy that checks it cannot be passed by.
  EXPECT_FALSE(
      control_->Admit({.authorization = "Bearer x", .api_key = infer_.key}, route, kNow).ok());
}

TEST(AccessControlOff, AdmitsEverybodyToWhatHasARow) {
  const AccessControl control;
  EXPECT_EQ(*control.Admit({}, "POST /v1/completions", kNow), kDefaultTenant);
  EXPECT_TRUE(
      control.Admit({.authorization = "Bearer any", .api_key = {}}, "GET /v1/models", kNow).ok());
  EXPECT_TRUE(control.Admit({}, "GET /metrics", kNow).ok());
  EXPECT_FALSE(control.Admit({}, "POST /new", kNow).ok());
}

TEST_F(AccessControlTest, AFileThatChangesIsReadAgainAndAMistakeChangesNothing) {
  Load();
  EXPECT_FALSE(*control_->Reload(kNow));
  const KeyAndLine next = MakeKey("b", "infer");
  const std::string_view route = "GET /v1/models";
  Write(next.line + "\nnonsense\n");
  const auto bad = control_->Reload(kNow);
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(ToString(bad.status()).find(file_ + ":2: a line begins with"), std::string::npos);
  EXPECT_TRUE(Ask(infer_.key, route).ok());
  EXPECT_FALSE(Ask(next.key, route).ok());
  Write(next.line + "\n" + metrics_.line + "\n");
  EXPECT_TRUE(*control_->Reload(kNow));
  EXPECT_FALSE(Ask(infer_.key, route).ok());
  EXPECT_EQ(*Ask(next.key, route), "b");
  std::filesystem::remove(file_);
  EXPECT_FALSE(*control_->Reload(kNow));
  EXPECT_TRUE(Ask(next.key, route).ok());
}

TEST_F(AccessControlTest, AFileWithoutAUsableKeyEndsTheStart) {
  const auto load = [&](const std::string& text) {
    Write(text);
    AccessControl control({file_});
    return ToString(control.Load(kNow));
  };
  EXPECT_NE(load("").find("the file has no key"), std::string::npos);
  EXPECT_NE(load("# nothing\n").find("the file has no key"), std::string::npos);
  EXPECT_NE(load(expired_.line).find("the time of every key is over"), std::string::npos);
  EXPECT_NE(load(infer_.line + "\n" + infer_.line).find("is there twice"), std::string::npos);
  EXPECT_EQ(load(expired_.line + "\n" + infer_.line), "OK");
  std::filesystem::remove(file_);
  AccessControl control({file_});
  EXPECT_EQ(control.Load(kNow).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace fathom::router
