"""The text model of CLIP (Radford et al. 2021, clip/model.py), with the names of transformers and SD's checkpoint."""

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        tokens = x.shape[1]
        later = torch.full((tokens, tokens), float("-inf")).triu(1)
        weight = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + later).softmax(dim=-1)
        return self.out_proj((weight @ v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        h = self.mlp.fc1(self.layer_norm2(x))
        return x + self.mlp.fc2(h * torch.sigmoid(1.702 * h))


class TextModel(nn.Module):
    def __init__(self, words: int, tokens: int, width: int, inner: int, layers: int, heads: int) -> None:
        super().__init__()
        self.text_model = nn.Module()
        self.text_model.embeddings = nn.Module()
        self.text_model.embeddings.token_embedding = nn.Embedding(words, width)
        self.text_model.embeddings.position_embedding = nn.Embedding(tokens, width)
        self.text_model.embeddings.register_buffer("position_ids", torch.arange(tokens)[None])
        self.text_model.encoder = nn.Module()
        self.text_model.encoder.layers = nn.ModuleList(Layer(width, inner, heads) for _ in range(layers))
        self.text_model.final_layer_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.text_model
        x = parts.embeddings.token_embedding(tokens) + parts.embeddings.position_embedding.weight
        for layer in parts.encoder.layers:
            x = layer(x)
        return parts.final_layer_norm(x)
