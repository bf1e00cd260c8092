// tests/router/api_world.h: the router's API for the bundled model over the sessions of a test.
#pragma once

#include <memory>

#include "common/clock.h"
#include "router/api/inference_api.h"
#include "tests/router/session_fixture.h"

namespace fathom::router {

struct ApiWorld {
  // REQUIRES: everything outlives this object.
  ApiWorld(Sessions* sessions, const Clock* clock, ApiObserver* observer) : pool(1, 4, clock) {
    auto read = ReadModelFolder(FATHOM_SOURCE_DIR "/models/fathom-tiny");
    EXPECT_TRUE(read.ok()) << ToString(read.status());
    folder = *std::move(read);
    auto loaded = ChatRenderer::Load(folder.path, "", &TinyTokenizer());
    EXPECT_TRUE(loaded.ok()) << ToString(loaded.status());
    chat = *std::move(loaded);
    ApiParts parts;
    parts.sessions = sessions;
    parts.folder = &folder;
    parts.served_name = "tiny";
    parts.tokenizer = &TinyTokenizer();
    parts.chat = chat.get();
    parts.pool = &pool;
    parts.grammars = &grammars;
    parts.clock = clock;
    parts.observer = observer;
    api = std::make_unique<InferenceApi>(parts);
  }

  // Of a scheduler with a group that serves the model.
  SchedulerFacts Facts() const {
    SchedulerFacts facts = TinyFacts();
    facts.cluster.config_digest = folder.config_digest;
    facts.cluster.vocab = folder.vocab;
    facts.cluster.block_tokens = 16;
    facts.cluster.pool_blocks = 512;
    return facts;
  }

  WorkPool pool;
  GrammarCache grammars{nullptr, 0};  // Without an engine.
  ModelFolder folder;
  std::unique_ptr<const ChatRenderer> chat;
  std::unique_ptr<InferenceApi> api;
};

}  // namespace fathom::router
