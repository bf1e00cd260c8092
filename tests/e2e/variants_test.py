"""Variants of models, made as rewritten copies of the bundled draft model: their answers are equal to the last bit."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from cluster import ROOT, Cluster, collect, goldens, pb, request

REWRITE = ROOT / "tests/tools/rewrite_model.py"
DRAFT = ROOT / "models/fathom-tiny-draft"
PROMPTS = [g["prompt_ids"] for g in goldens("fathom-tiny-draft")][:4]


class Variants(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def rewrite(self, name, *args, source=DRAFT):
        target = self.folder / name
        subprocess.run([sys.executable, REWRITE, source, target, *args], check=True)
        return target

    def answers(self, model, *args):
        with Cluster(*args, model=model) as c:
            results = [c.generate(ids=ids, max_tokens=20, logprobs=2, ignore_eos=True) for ids in PROMPTS]
            self.assertTrue(all(r.error is None and len(r.ids) == 20 for r in results), results[0].error)
            return [r.bits() for r in results]

    def test_shards_and_float32_are_the_original(self):
        want = self.answers(DRAFT)
        self.assertEqual(self.answers(self.rewrite("f32", "--dtype", "float32", "--shards", "3")), want)

    def test_float16_is_float32_of_its_values(self):
        half = self.rewrite("half", "--dtype", "float16")
        wide = self.rewrite("wide", "--round", "float16", "--dtype", "float32")
        self.assertEqual(self.answers(half, "-tp", "2"), self.answers(wide, "-tp", "2"))

    def test_tied_embeddings_are_a_copied_head(self):
        self.assertEqual(self.answers(self.rewrite("tied", "--tie")), self.answers(self.rewrite("copied", "--copy-head")))

    def test_overrides_change_the_configuration_of_router_and_workers(self):
        strange = self.folder / "strange"
        shutil.copytree(DRAFT, strange)
        config = json.loads((strange / "config.json").read_text(encoding="utf-8"))
        (strange / "config.json").write_text(json.dumps({**config, "clip_qkv": 8.0}), encoding="utf-8")
        self.assertEqual(self.answers(strange, "--hf-overrides", '{"clip_qkv": null}'), self.answers(DRAFT))
        with Cluster("--hf-overrides", '{"max_position_embeddings": 64}', model=DRAFT) as c:
            result = c.generate(ids=PROMPTS[0], max_tokens=64)
            self.assertIn("exceeds the context of model fathom-tiny-draft (64 tokens)", str(result.error))

    def test_a_context_of_millions(self):
        with Cluster("--hf-overrides", '{"max_position_embeddings": 10485760}', model=DRAFT) as c:
            result = c.generate(ids=PROMPTS[0], max_tokens=20, ignore_eos=True)
            self.assertEqual((result.error, len(result.ids)), (None, 20))

    def test_vocabularies_that_ranks_do_not_divide(self):
        """Greedy answers stay equal, because each added token is a copy of the last one and the lower id wins a tie."""
        def ids(model):
            with Cluster("-tp", "2", model=model) as c:
                results = [c.generate(ids=prompt, max_tokens=20, temperature=0, ignore_eos=True) for prompt in PROMPTS]
                self.assertTrue(all(r.error is None and len(r.ids) == 20 for r in results), results[0].error)
                self.assertTrue(all(r.error is not None for r in [c.generate(ids=[1, 4099], max_tokens=1)]))
                return [list(r.ids) for r in results]
        want = ids(DRAFT)
        for vocab in ("4097", "4099"):
            with self.subTest(vocab=vocab):
                self.assertEqual(ids(self.rewrite("v" + vocab, "--vocab", vocab)), want)

    def test_several_end_tokens(self):
        with Cluster(model=DRAFT) as c:
            free = c.generate(ids=PROMPTS[0], max_tokens=20, ignore_eos=True)
        early = free.ids[2]
        with Cluster(model=self.rewrite("ends", "--end-ids", f"1,{early}")) as c:
            result = c.generate(ids=PROMPTS[0], max_tokens=20)
            self.assertEqual(result.ids, free.ids[: free.ids.index(early) + 1])
            self.assertEqual(result.finish.reason, pb.FINISH_REASON_STOP)
            self.assertEqual(result.finish.stop_token_id, early)
            masked = c.generate(ids=PROMPTS[0], max_tokens=20, min_tokens=10)
            self.assertGreaterEqual(len(masked.ids), 10)
            self.assertNotIn(early, masked.ids[:10])

    def test_chat_template_in_a_file_of_its_own(self):
        own = self.folder / "own.jinja"
        own.write_text("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}", encoding="utf-8")
        chat = pb.TokenizeRequest(chat=pb.ChatMessages(messages=[pb.ChatMessage(role="user", content="Hi")]))
        with Cluster(model=self.rewrite("own", "--template-file")) as c:
            same = c.client.stub.Tokenize(chat)
        with Cluster(model=DRAFT) as c:
            self.assertEqual(same, c.client.stub.Tokenize(chat))
        target = self.rewrite("other", "--template-file")
        shutil.copy(own, target / "chat_template.jinja")
        with Cluster(model=target) as c:
            self.assertEqual(c.client.stub.Tokenize(chat).rendered, "<｜begin▁of▁sentence｜>[user]Hi")


if __name__ == "__main__":
    unittest.main(verbosity=2)
