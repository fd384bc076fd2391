"""Scenes, images and datasets: vocabulary, formats, generators. Knows no renderer and no Prefect."""
