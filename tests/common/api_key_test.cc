// API keys and the lines of their files.
#include "common/api_key.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "common/process.h"

namespace fathom {
namespace {

TEST(ApiKey, NewKeysHaveTheFormAndNoTwoAreEqual) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = NewApiKey();
    ASSERT_TRUE(IdOfApiKey(key).has_value()) << key;
    EXPECT_EQ(*IdOfApiKey(key), key.substr(3, 12));
    EXPECT_TRUE(seen.insert(key).second);
    EXPECT_TRUE(seen.insert(std::string(*IdOfApiKey(key))).second);
  }
}

TEST(ApiKey, WhatIsNoKeyHasNoId) {
  const std::string key = NewApiKey();
  for (size_t i = 0; i < key.size(); ++i) {
    EXPECT_FALSE(IdOfApiKey(key.substr(0, i)).has_value()) << i;
    std::string other = key;
    other[i] = 'X';
    EXPECT_FALSE(IdOfApiKey(other).has_value()) << i;
  }
  EXPECT_FALSE(IdOfApiKey(key + "0").has_value());
  EXPECT_FALSE(IdOfApiKey("Bearer " + key).has_value());
}

TEST(ApiKey, AHashIsComparedWhole) {
  const std::string hash = HashOfApiKey(NewApiKey());
  EXPECT_EQ(hash.size(), 64U);
  EXPECT_TRUE(SameHash(hash, hash));
  for (size_t i = 0; i < hash.size(); ++i) {
    std::string other = hash;
    other[i] = other[i] == '0' ? '1' : '0';
    EXPECT_FALSE(SameHash(hash, other)) << i;
  }
  EXPECT_FALSE(SameHash(hash, hash.substr(1)));
}

TEST(ApiKey, LinesGoRound) {
  const std::string hash(64, 'a');
  for (uint8_t permissions = 1; permissions < 8; ++permissions) {
    for (const int64_t expires : {int64_t{0}, int64_t{1'800'000'000}}) {
      const ApiKeyEntry entry{"0123456789ab", hash, "team/ä", permissions, expires};
      const auto back = ParseApiKeyEntry(FormatApiKeyEntry(entry));
      ASSERT_TRUE(back.ok()) << ToString(back.status());
      EXPECT_EQ(back->id, entry.id);
      EXPECT_EQ(back->hash, entry.hash);
      EXPECT_EQ(back->tenant, entry.tenant);
      EXPECT_EQ(back->permissions, entry.permissions);
      EXPECT_EQ(back->expires_unix_s, entry.expires_unix_s);
    }
  }
}

TEST(ApiKey, ABadLineNamesItsPartAndNotTheHash) {
  const std::string hash(64, 'c');
  const std::string head = "0123456789ab sha256:" + hash;
  const std::pair<std::string, std::string> cases[] = {
      {"", "begins with the id"},
      {"0123456789ab", "begins with the id"},
      {"0123456789aX sha256:" + hash + " tenant=a permissions=infer", "begins with the id"},
      {"0123456789ab sha256:" + hash.substr(1) + " tenant=a permissions=infer", "begins with"},
      {head, "tenant= is missing"},
      {head + " tenant=a", "permissions= is missing"},
      {head + " tenant=a permissions=", "there is none"},
      {head + " tenant=a permissions=infer,root", "'root' is none"},
      {head + " tenant=\xff permissions=infer", "UTF-8"},
      {head + " tenant=a tenant=b permissions=infer", "each once"},
      {head + " tenant=a permissions=infer expires=tomorrow", "'tomorrow' is no date"},
      {head + " tenant=a permissions=infer expires=2027-02-30", "is no date"},
      {head + " tenant=a permissions=infer expires=2027-02-03T25:00:00Z", "is no date"},
      {head + " tenant=a permissions=infer colour=red", "'colour'"},
  };
  for (const auto& [line, says] : cases) {
    const auto entry = ParseApiKeyEntry(line);
    ASSERT_FALSE(entry.ok()) << line;
    EXPECT_NE(ToString(entry.status()).find(says), std::string::npos) << ToString(entry.status());
    EXPECT_EQ(ToString(entry.status()).find(hash.substr(0, 8)), std::string::npos) << line;
  }
}

TEST(ApiKey, TimesGoRound) {
  EXPECT_EQ(*ParseExpiry("1970-01-01"), 0);
  EXPECT_EQ(*ParseExpiry("2027-01-31"), *ParseExpiry("2027-01-31T00:00:00Z"));
  EXPECT_EQ(FormatExpiry(1'800'000'000), "2027-01-15T08:00:00Z");
  for (int64_t s = 0; s < 4'000'000'000; s += 12'345'678) {
    EXPECT_EQ(*ParseExpiry(FormatExpiry(s)), s);
  }
}

}  // namespace
}  // namespace fathom
